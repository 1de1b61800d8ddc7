//! One declaration a key: its name, what it means, its type, default and limits, and whether a running relay takes over a change.
//!
//! `section!` makes of it the struct that the rest of the relay sees, the reading, what a reload does, and the list of keys and
//! defaults that a test compares with relay.toml.

/// Declares a section's struct. Each line is `key: Type = default, how it is read, live or restart;`. Fields under `with` are no
/// keys of their own: their values are given to `read`.
macro_rules! section {
    (
        $(#[$about:meta])*
        pub struct $Name:ident in $section:literal {
            $( $(#[$meaning:meta])* $key:ident: $type:ty = $default:expr, $read:expr, $reload:ident; )*
        }
        $( with { $( $(#[$its_meaning:meta])* $field:ident: $its_type:ty, )* } )?
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $Name {
            $( $( $(#[$its_meaning])* pub $field: $its_type, )* )?
            $( $(#[$meaning])* pub $key: $type, )*
        }

        impl $Name {
            /// Reads every key. What is not there, or is wrong, has its default, so that the reading goes on and finds what else is wrong.
            fn read(s: &mut $crate::config::reader::Section<'_> $( $(, $field: $its_type )* )?) -> Self {
                Self {
                    $( $( $field, )* )?
                    $( $key: s.read(stringify!($key), $read).unwrap_or_else(|| $default), )*
                }
            }
        }

        impl $crate::config::declare::Declared for $Name {
            #[cfg(test)]
            const SECTION: &str = $section;
            #[cfg(test)]
            const KEYS: &[(&str, &str)] = &[ $( (stringify!($key), stringify!($default)), )* ];

            fn take_over(&mut self, new: &Self, left: &mut Vec<&'static str>) {
                $( $reload(concat!($section, ".", stringify!($key)), &mut self.$key, &new.$key, left); )*
            }
        }
    };
}
pub(super) use section;

/// What every declared section has.
pub trait Declared {
    /// Its name in relay.toml.
    #[cfg(test)]
    const SECTION: &str;
    /// Its keys, each with its default as it is declared.
    #[cfg(test)]
    const KEYS: &[(&str, &str)];

    /// Takes over from `new` what can change while the relay runs; notes in `left` the keys that differ and cannot.
    fn take_over(&mut self, new: &Self, left: &mut Vec<&'static str>);
}

/// A change of the key is taken over while the relay runs.
pub fn live<T: Clone>(_: &'static str, mine: &mut T, new: &T, _: &mut Vec<&'static str>) {
    mine.clone_from(new);
}

/// A change of `key` needs a restart; until then the running value stays.
pub fn restart<T: PartialEq>(
    key: &'static str,
    mine: &mut T,
    new: &T,
    left: &mut Vec<&'static str>,
) {
    if mine != new {
        left.push(key);
    }
}
