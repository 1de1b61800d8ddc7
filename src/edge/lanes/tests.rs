//! Lanes against a real tiny_http.
