//! relay.toml: any text is a configuration or a list of errors, each with its place.

use payrelay::config::Config;

/// Reads `data` as relay.toml.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Config::parse(text, "relay.toml") {
        Ok(config) => {
            // Whatever is a configuration is one after a reload, too.
            let again = Config::parse(text, "relay.toml").expect("the same text is read alike");
            assert_eq!(config, again);
            let _ = format!("{config:?}");
        }
        Err(errors) => {
            assert!(errors.iter().count() > 0);
            for error in &errors {
                assert!(error.place.is_some());
                let line = error.to_string();
                assert!(!line.contains('\n'), "an error of two lines");
            }
        }
    }
}
