//! The codec: a verdict stands whatever follows, and what was read is written and read again alike.

use payrelay::wire::{LINE_BYTES_MAX, Line, line};

/// Reads `data` as what a peer sends.
pub fn run(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((read, used))) = Line::find(rest) {
        assert!((1..=LINE_BYTES_MAX + 2).contains(&used));
        let text = std::str::from_utf8(&rest[..used]).expect("printable ASCII");
        again(&read, text.trim_end_matches(['\r', '\n']));
        let told = (read.verb, read.number, read.data_bytes);
        // Nothing that comes before the end is taken for it, and nothing that follows changes it.
        for cut in [0, used / 2, used - 1] {
            assert!(
                matches!(Line::find(&rest[..cut]), Ok(None)),
                "cut at {cut} of {used}"
            );
        }
        let longer = [&rest[..used], b"\n=%"].concat();
        let (same, its) = Line::find(&longer).expect("well-formed").expect("whole");
        assert_eq!(
            (told, used),
            ((same.verb, same.number, same.data_bytes), its)
        );
        rest = &rest[used..];
        let Some(data_bytes) = read.data_bytes else {
            continue;
        };
        match data_bytes.checked_add(1).and_then(|end| rest.get(end..)) {
            Some(after) => rest = after,
            None => return,
        }
    }
}

/// Writes what was read, and reads it once more.
fn again(read: &Line<'_>, text: &str) {
    let tokens = text.split(' ').skip(1 + usize::from(read.number.is_some()));
    let args: Vec<(&str, String)> = tokens
        .filter_map(|token| token.split_once('='))
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, _)| {
            (
                key,
                read.text(key).expect("a key that is there").into_owned(),
            )
        })
        .collect();
    let mut out = Vec::new();
    let mut writer = line(&mut out, read.verb);
    if let Some(number) = read.number.and_then(|number| number.parse().ok()) {
        writer = writer.number(number);
    }
    for (key, value) in &args {
        writer = writer.arg(key, value);
    }
    match read.data_bytes {
        None => writer.end(),
        Some(bytes) => writer.end_with_data(bytes),
    }
    // Escapes may make it longer than a line may be.
    if out.len() > LINE_BYTES_MAX {
        return;
    }
    let (second, used) = Line::find(&out).expect("well-formed").expect("whole");
    assert_eq!(
        (second.verb, second.data_bytes, used),
        (read.verb, read.data_bytes, out.len())
    );
    for (key, value) in &args {
        assert_eq!(second.text(key).as_deref(), Some(value.as_str()));
    }
}
