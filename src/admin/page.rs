//! The page that people look at: files that are a part of the binary. There is no secret in them, so they are open to anybody;
//! what they show, they ask for like everybody else.

use super::reply::AdminReply;

/// What the page may load and ask: its own files and its own node, and nothing written into it.
const POLICY: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// Path, type and content of each.
const FILES: [(&str, &str, &str); 10] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page/style.css", STYLE, include_str!("page/style.css")),
    ("/page/icon.svg", ICON, include_str!("page/icon.svg")),
    ("/page/api.js", SCRIPT, include_str!("page/api.js")),
    ("/page/app.js", SCRIPT, include_str!("page/app.js")),
    ("/page/words.js", SCRIPT, include_str!("page/words.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/body.js", SCRIPT, include_str!("page/body.js")),
    (
        "/page/notifications.js",
        SCRIPT,
        include_str!("page/notifications.js"),
    ),
    ("/page/state.js", SCRIPT, include_str!("page/state.js")),
];

/// The file at `path`, if there is one.
pub fn file(path: &str) -> Option<AdminReply> {
    let (_, content_type, text) = FILES.iter().find(|(its, _, _)| *its == path)?;
    let told = AdminReply {
        content_type,
        ..AdminReply::text(200, text)
    };
    Some(
        told.with(POLICY)
            .with("Cross-Origin-Opener-Policy: same-origin"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_asks_for_anything_elsewhere_or_writes_html() {
        for (path, _, text) in FILES {
            let foreign = text.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !foreign.contains("http://") && !foreign.contains("https://"),
                "{path}"
            );
            for needle in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=\"",
                " on",
            ] {
                let found = match needle {
                    " on" => text.split(" on").skip(1).any(|rest| {
                        rest.split('=').next().is_some_and(|word| {
                            path == "/"
                                && word.len() < 12
                                && word.bytes().all(|b| b.is_ascii_lowercase())
                        })
                    }),
                    needle => text.contains(needle),
                };
                assert!(!found, "{path}: {needle}");
            }
        }
        let told = file("/").expect("a page");
        assert!(
            told.extra
                .iter()
                .any(|line| line.starts_with("Content-Security-Policy: default-src 'none'"))
        );
        assert!(file("/page/").is_none() && file("/page/../page/app.js").is_none());
    }
}
