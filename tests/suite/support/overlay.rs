//! A test's relay.toml: what it names, over what all tests have.

/// Lays `fragment` over `base`: its keys replace or join those of the same section, its `[[route]]`s replace all.
pub fn overlay(base: &str, fragment: &str) -> String {
    let mut sections: Vec<(String, Vec<String>)> = vec![(String::new(), Vec::new())];
    let mut read = |text: &str, replaces_routes: bool| {
        let mut at = 0;
        let mut routes_replaced = !replaces_routes;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.starts_with("[[") {
                if !routes_replaced {
                    sections.retain(|(header, _)| !header.starts_with("[["));
                    routes_replaced = true;
                }
                at = sections.len();
                sections.push((line.to_owned(), Vec::new()));
            } else if line.starts_with('[') {
                at = sections
                    .iter()
                    .position(|(header, _)| header == line)
                    .unwrap_or(sections.len());
                if at == sections.len() {
                    sections.push((line.to_owned(), Vec::new()));
                }
            } else {
                let key = |line: &str| line.split('=').next().map(|key| key.trim().to_owned());
                let lines = &mut sections[at].1;
                lines.retain(|old| key(old) != key(line));
                lines.push(line.to_owned());
            }
        }
    };
    read(base, false);
    read(fragment, true);
    let text = sections
        .iter()
        .map(|(header, lines)| format!("{header}\n{}\n", lines.join("\n")));
    text.collect()
}

#[cfg(test)]
mod tests {
    use super::overlay;

    #[test]
    fn a_fragment_is_laid_over_key_by_key_and_its_routes_replace_all() {
        let text = overlay(
            "node = \"a\"\n[tcp]\nqueue = 1\nmax = 2\n[[route]]\npath = \"/a\"\n",
            "[tcp]\nqueue = 3\n[new]\nx = 1\n[[route]]\npath = \"/b\"\n[[route]]\npath = \"/c\"\n",
        );
        let table: toml::Table = text.parse().expect("TOML");
        assert_eq!(table["tcp"]["queue"].as_integer(), Some(3));
        assert_eq!(table["tcp"]["max"].as_integer(), Some(2));
        assert_eq!(table["new"]["x"].as_integer(), Some(1));
        let routes: Vec<_> = table["route"]
            .as_array()
            .expect("routes")
            .iter()
            .map(|r| r["path"].as_str())
            .collect();
        assert_eq!(routes, [Some("/b"), Some("/c")]);
    }
}
