//! What is left to do after `payrelay init`, in the order in which it is done.

use std::path::Path;

use payrelay::config::{FILL_IN, Secret};
use payrelay::session::token::sign;

use super::file::{ADMIN_PORT, Chosen, HTTP_PORT, TCP_PORT};
use super::{Args, Secrets};
use crate::cli::config_file::SYSTEM_CONFIG;

/// The steps, for people.
pub fn tell(args: &Args, secrets: &Secrets, path: &Path, text: &str, chosen: &[Chosen]) -> String {
    let file = path.display();
    let is_system = path == Path::new(SYSTEM_CONFIG);
    let with_file = match is_system {
        true => String::new(),
        false => format!(" -c {file}"),
    };
    let mut steps = Vec::new();
    let marked: String = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains(FILL_IN))
        .map(|(n, line)| format!("   {file}:{}: {line}\n", n + 1))
        .collect();
    if !marked.is_empty() {
        steps.push(format!(
            "Replace what is marked FILL IN. Instead of a secret you can write env:NAME, file:PATH or credential:NAME.\n{marked}"
        ));
    }
    steps.push(match is_system {
        true => "See that all is right: payrelay check --user payrelay\n".to_owned(),
        false => format!("See that all is right: payrelay check{with_file}\n"),
    });

    let host = match args.public.as_deref() {
        Some(public) if !public.is_empty() => public.to_owned(),
        _ => "https://YOUR-ADDRESS".to_owned(),
    };
    let mut paste = "Tell the provider in its console where to send; the last part is the backend that gets it.\n".to_owned();
    for provider in &args.providers {
        let name = provider.name;
        paste.push_str(&format!("   {name}: {host}/{name}/{}\n", args.backend));
        for Chosen { secret, .. } in chosen.iter().filter(|chosen| chosen.provider == name) {
            paste.push_str(&format!("   {name}, secret: {secret}\n"));
        }
    }
    steps.push(paste);

    let token = sign(&Secret::new(&secrets.tcp), &args.backend);
    let relay = match args.backends_public {
        true => "ADDRESS-OF-THIS-MACHINE",
        false => "127.0.0.1",
    };
    steps.push(format!(
        "In the Lua backend, with payrelay.lua beside it:\n\
         \x20  local payrelay = require(\"payrelay\")\n\
         \x20  payrelay.luasocket.new{{\n\
         \x20    host = \"{relay}\", port = {TCP_PORT}, id = \"{}\",\n\
         \x20    token = \"{token}\",\n\
         \x20    on_message = function(msg)\n\
         \x20      print(msg.id, msg.event, msg.body) -- book it here, once, and commit\n\
         \x20      return true                        -- only now the provider is told ok\n\
         \x20    end,\n\
         \x20  }}:run()\n",
        args.backend
    ));
    steps.push(match is_system {
        true => "Start it: systemctl enable --now payrelay\n".to_owned(),
        false => format!("Start it: payrelay run{with_file}\n"),
    });
    steps.push(format!(
        "Until the backend is there, be one: payrelay listen {}{with_file}\n   Providers come to port {HTTP_PORT}; who is connected: payrelay status{with_file}\n",
        args.backend
    ));
    steps.push(format!(
        "See every payment in a browser on this machine: http://127.0.0.1:{ADMIN_PORT}/ asks for this token: {}\n   \
         In one elsewhere, after: ssh -L {ADMIN_PORT}:127.0.0.1:{ADMIN_PORT} THIS-MACHINE\n",
        secrets.admin
    ));

    let signs = args.providers.iter().map(|provider| {
        let name = provider.name;
        format!(
            "   payrelay send {} --sign {name}{with_file}\n",
            args.backend
        )
    });
    steps.push(format!(
        "Be the provider, before it is: a callback signed as it signs. If only the provider has the key: payrelay keys test --help\n{}",
        signs.collect::<String>()
    ));

    let mut told = format!("Wrote {file}.\n");
    for (n, step) in steps.iter().enumerate() {
        told.push_str(&format!("\n{}. {step}", n + 1));
    }
    told
}
