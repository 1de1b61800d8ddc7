//! How a callback is written as one input of the fuzzer, for the target that reads it and the test that writes its seeds.

use serde_json::Value;

/// The request line, the headers, an empty line and the body of a vector of the schemes.
pub fn of_vector(vector: &Value) -> Vec<u8> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut sent = format!("{} {}\n", text(&vector["method"]), text(&vector["target"]));
    for header in vector["headers"].as_array().into_iter().flatten() {
        sent += &format!("{}: {}\n", text(&header[0]), text(&header[1]));
    }
    (sent + "\n" + &text(&vector["body"])).into_bytes()
}
