//! What must hold of the rows that somebody asks for: conditions in SQL, with the values for them.

use rusqlite::types::Value;

use super::row::State;

/// Conditions that must all hold of a row of `notification n`.
pub struct Conditions {
    wanted: Vec<String>,
    /// One for each `?`, in their order.
    values: Vec<Value>,
}

impl Conditions {
    /// `condition` must hold; `values` are those for it.
    pub fn new<const N: usize>(condition: &str, values: [Value; N]) -> Self {
        Self {
            wanted: vec![condition.to_owned()],
            values: values.into(),
        }
    }

    /// `condition` must hold too.
    pub fn and(&mut self, condition: String, values: impl IntoIterator<Item = Value>) {
        self.wanted.push(condition);
        self.values.extend(values);
    }

    /// `column` must have this text, if it is one.
    pub fn and_text(&mut self, column: &str, text: Option<&String>) {
        if let Some(text) = text {
            self.and(format!("{column} = ?"), [Value::Text(text.clone())]);
        }
    }

    /// The rows must have this state, if it is one.
    pub fn and_state(&mut self, state: Option<State>) {
        if let Some(state) = state {
            // With the +, no index: they are wanted in their order, and few enough of them.
            self.and("+n.state = ?".to_owned(), [Value::Integer(state as i64)]);
        }
    }

    /// As SQL, and its values with `limit` behind them.
    pub fn with_limit(mut self, limit: usize) -> (String, Vec<Value>) {
        self.values.push(Value::Integer(limit as i64));
        (self.wanted.join(" AND "), self.values)
    }
}
