//! What things are called in Redis: the table in this room's first file.

use crate::bus::Topic;

/// What things are called in Redis.
#[derive(Clone)]
pub struct Names {
    pub prefix: String,
    pub instance: String,
}

impl Names {
    /// A channel's name, in the parts it is made of.
    pub fn to<'a>(&'a self, kind: &'a str, name: &'a str) -> [&'a str; 4] {
        [&self.prefix, ":", kind, name]
    }

    /// The channel of `topic`.
    pub fn of(&self, topic: &Topic) -> String {
        match topic {
            Topic::Backend(id) => self.to("to:", id.as_str()).concat(),
            Topic::Event(channel) => self.to("event:", channel.as_str()).concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Channel;
    use crate::notification::BackendId;

    #[test]
    fn names_are_what_the_table_says() {
        let names = Names {
            prefix: "p".into(),
            instance: "a-1".into(),
        };
        let backend = BackendId::parse("game-01").expect("an id");
        let channel = Channel::parse("news/today").expect("a channel");
        assert_eq!(names.of(&Topic::Backend(backend)), "p:to:game-01");
        assert_eq!(names.of(&Topic::Event(channel)), "p:event:news/today");
        assert_eq!(names.to("node:", &names.instance).concat(), "p:node:a-1");
    }
}
