//! The questions of `payrelay init` in a terminal. An empty answer takes what stands in brackets.

use std::io::{self, BufRead, Write};

use payrelay::notification::BackendId;
use payrelay::verify::presets;

use super::Args;

/// Asks for everything that `args` do not say.
///
/// # Errors
/// The terminal has gone.
pub fn ask(args: &mut Args, from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    let names: Vec<&str> = presets::all().map(|preset| preset.name).collect();
    writeln!(to, "Providers: {}", names.join(", "))?;
    args.providers = until_right(
        from,
        to,
        "Which of them? (with commas between)",
        "",
        |text| {
            let names = text
                .split([',', ' ', '，', '、'])
                .filter(|name| !name.is_empty());
            let providers: Vec<_> = names.map(super::preset).collect::<Result<_, _>>()?;
            match providers.is_empty() {
                true => Err("at least one".into()),
                false => Ok(providers),
            }
        },
    )?;
    let backend = args.backend.to_string();
    args.backend = until_right(
        from,
        to,
        "The id of the first Lua backend",
        &backend,
        |text| BackendId::parse(text).map_err(|bad| bad.to_string()),
    )?;
    if args.public.is_none() {
        let question = "How providers reach this machine (https://pay.example.com), or - behind a proxy on this machine";
        args.public = until_right(from, to, question, "-", |text| match text {
            "-" => Ok(None),
            text => super::address(text).map(Some),
        })?;
    }
    if !args.backends_public {
        let question = "Do Lua backends come from other machines? (y/n)";
        args.backends_public = until_right(from, to, question, "n", |text| match text {
            "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err("y or n".into()),
        })?;
    }
    if args.redis.is_none() {
        let question = "Several nodes share a Redis: its URL, or - for one node";
        args.redis = until_right(from, to, question, "-", |text| {
            Ok((text != "-").then(|| text.to_owned()))
        })?;
    }
    writeln!(to)
}

fn until_right<T>(
    from: &mut impl BufRead,
    to: &mut impl Write,
    question: &str,
    default: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> io::Result<T> {
    loop {
        match default {
            "" => write!(to, "{question}: ")?,
            default => write!(to, "{question} [{default}]: ")?,
        }
        to.flush()?;
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let answer = match line.trim() {
            "" => default,
            text => text,
        };
        match read(answer) {
            Ok(value) => return Ok(value),
            Err(words) => writeln!(to, "  {words}")?,
        }
    }
}
