//! Rules for the Lua that users copy.

use super::{all_lines, files, none};

/// Lua's words that neither end an expression nor begin a statement.
const LUA_INNER_WORDS: &[&str] = &[
    "and", "do", "else", "elseif", "end", "in", "not", "or", "then", "until",
];

/// Lua's words that begin a statement.
const LUA_FIRST_WORDS: &[&str] = &[
    "break", "for", "function", "if", "local", "repeat", "return", "while",
];

/// The tokens of one line of Lua: names, numbers, "" for a string, and single characters. Without comments, and without the
/// parameters of functions.
fn lua_tokens(line: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '-' if chars.peek() == Some(&'-') => break,
            '"' | '\'' => {
                while let Some(inside) = chars.next().filter(|inside| *inside != c) {
                    if inside == '\\' {
                        chars.next();
                    }
                }
                tokens.push("\"\"".into());
            }
            _ if c.is_whitespace() => {}
            _ if c.is_alphanumeric() || c == '_' => {
                let mut word = c.to_string();
                while let Some(next) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    word.push(next);
                }
                tokens.push(word);
            }
            _ => tokens.push(c.into()),
        }
    }
    while let Some(at) = tokens.iter().position(|token| token == "function") {
        let end = tokens[at..].iter().position(|token| token == ")");
        tokens.splice(at..=at + end.unwrap_or(0), ["do".into()]);
    }
    tokens
}

/// Whether one line of Lua has two statements in a row: `tcp:close() tcp = nil`.
fn has_two_statements(line: &str) -> bool {
    let tokens = lua_tokens(line);
    let is_name = |token: &str| token.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let is_inner = |token: &str| LUA_INNER_WORDS.contains(&token);
    let is_first = |token: &str| LUA_FIRST_WORDS.contains(&token);
    let in_a_row = tokens.windows(2).any(|pair| {
        let (before, after) = (pair[0].as_str(), pair[1].as_str());
        let is_whole = matches!(before, ")" | "]" | "}" | "\"\"" | "end")
            || is_name(before) && !is_inner(before) && !is_first(before);
        is_whole && is_name(after) && !is_inner(after)
    });
    in_a_row || tokens.iter().any(|token| token == ";")
}

#[test]
fn lua_that_users_copy_has_one_statement_a_line_of_100_columns() {
    let two = [
        "tcp:close() tcp = nil",
        "a = b return",
        "f{ 1 } g()",
        "a = 1; b = 2",
        "if x then y = 1 z() end",
    ];
    assert!(two.iter().all(|line| has_two_statements(line)));
    let one = [
        "local function f(a, b) return a end -- and so on",
        "if not x then return nil, \"a b\" end",
    ];
    assert!(!one.iter().any(|line| has_two_statements(line)));
    let all = files("clients", &[".lua"]);
    let mut offences = Vec::new();
    let mut is_text = false;
    for (path, n, line) in all_lines(&all) {
        let was_text = is_text;
        is_text = line.ends_with("[[") || is_text && !line.contains("]]");
        let is_wide = line.chars().count() > 100;
        if is_wide || !was_text && has_two_statements(line) {
            offences.push(format!("{path}:{n}: {line}"));
        }
    }
    none(&offences, "one statement a line, and 100 columns");
}
