//! Scripts that run in Redis.

use std::sync::OnceLock;

use redis::Cmd;

/// A script in Lua. Made to be a constant: `static SCRIPT: Script = Script::new("return 1");`.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    digest: OnceLock<String>,
}

impl Script {
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            digest: OnceLock::new(),
        }
    }

    pub(super) fn by_digest(&self, keys: &[&[u8]], arguments: &[&[u8]]) -> Cmd {
        let digest = self
            .digest
            .get_or_init(|| redis::Script::new(self.text).get_hash().to_owned());
        command("EVALSHA", digest, keys, arguments)
    }

    /// The server remembers it by its digest from then on.
    pub(super) fn by_text(&self, keys: &[&[u8]], arguments: &[&[u8]]) -> Cmd {
        command("EVAL", self.text, keys, arguments)
    }
}

fn command(name: &str, script: &str, keys: &[&[u8]], arguments: &[&[u8]]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script).arg(keys.len());
    for argument in keys.iter().chain(arguments) {
        command.arg(*argument);
    }
    command
}
