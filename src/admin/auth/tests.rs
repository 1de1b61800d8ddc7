//! Tokens, logins, and what another site's page may not do.

use super::*;

const ADMIN: &str = "an-admin-token-0123456789";
const READER: &str = "a-read-token-0123456789";

fn gate() -> Gate {
    let reader = ReadToken {
        name: "support".into(),
        token: Secret::new(READER),
        bodies: false,
    };
    Gate::new("pay-1-0a1b2c", Some(Secret::new(ADMIN)), vec![reader])
}

fn shown<'a>(authorization: Option<&'a str>, cookie: Option<&'a str>) -> Shown<'a> {
    Shown {
        authorization: authorization.map(str::as_bytes),
        cookie: cookie.map(str::as_bytes),
        host: Some(b"relay.example:9100"),
        fetch_site: None,
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
    }
}

fn cookie_of(line: &str) -> String {
    let value = line
        .strip_prefix("Set-Cookie: ")
        .and_then(|line| line.split(';').next());
    value.unwrap_or_default().to_owned()
}

#[test]
fn a_token_says_who_it_is_and_what_its_holder_may_do() {
    let gate = gate();
    let by = |authorization| gate.identify(&shown(Some(authorization), None));
    let admin = by("Bearer an-admin-token-0123456789").expect("the admin");
    assert_eq!(
        (&*admin.name, admin.rights, admin.proven),
        ("admin", ALL, true)
    );
    let support = by("bearer  a-read-token-0123456789").expect("a reader");
    assert_eq!(&*support.name, "support");
    assert_eq!((support.rights.act, support.rights.bodies), (false, false));
    for wrong in [
        "",
        "Bearer ",
        "Basic x",
        ADMIN,
        "Bearer an-admin-token-012345678",
        "Bearer an-admin-token-01234567890",
    ] {
        assert_eq!(by(wrong), Err(AuthError::WrongToken), "{wrong}");
    }
    assert_eq!(gate.identify(&shown(None, None)), Err(AuthError::NoToken));
}

#[test]
fn a_login_lasts_until_it_is_ended_or_its_token_is_gone() {
    let gate = gate();
    let peer = shown(None, None).peer;
    let (caller, line) = gate.log_in(READER, peer, false).expect("a login");
    assert_eq!(&*caller.name, "support");
    assert!(
        line.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"),
        "{line}"
    );
    assert!(!line.contains(READER));
    let cookie = cookie_of(&line);
    let by = |cookie: &str| gate.identify(&shown(None, Some(cookie)));
    let known = by(&format!("other=1; {cookie}")).expect("logged in");
    assert_eq!((&*known.name, known.proven), ("support", false));
    assert_eq!(
        by(&format!("{cookie}; {cookie}")),
        Err(AuthError::NoToken),
        "which of them?"
    );
    assert_eq!(by(&format!("{cookie}0")), Err(AuthError::NoToken));

    gate.set(Some(Secret::new(ADMIN)), Vec::new());
    assert_eq!(by(&cookie), Err(AuthError::NoToken), "the token is gone");
    let (_, line) = gate.log_in(ADMIN, peer, true).expect("a login");
    assert!(line.ends_with("; Secure"));
    let cookie = cookie_of(&line);
    assert!(by(&cookie).is_ok());
    assert!(gate.log_out(Some(cookie.as_bytes())).contains("Max-Age=0"));
    assert_eq!(by(&cookie), Err(AuthError::NoToken));
    assert_eq!(
        gate.log_in("wrong-0123456789", peer, false),
        Err(AuthError::WrongToken)
    );
}

#[test]
fn logins_are_bounded_and_wrong_tokens_counted() {
    let gate = gate();
    let peer = shown(None, None).peer;
    let first = cookie_of(&gate.log_in(ADMIN, peer, false).expect("a login").1);
    for _ in 0..LOGINS_MAX {
        assert!(gate.log_in(ADMIN, peer, false).is_ok());
    }
    assert_eq!(gate.logins.lock().len(), LOGINS_MAX);
    assert_eq!(
        gate.identify(&shown(None, Some(&first))),
        Err(AuthError::NoToken)
    );
    for _ in 0..FAILURES_PER_MINUTE {
        assert_eq!(gate.log_in("x", peer, false), Err(AuthError::WrongToken));
    }
    assert!(matches!(
        gate.log_in("x", peer, false),
        Err(AuthError::TooMany(_))
    ));
    assert!(
        gate.log_in(ADMIN, peer, false).is_ok(),
        "the right one is taken all the same"
    );
}

#[test]
fn without_a_token_another_sites_name_is_not_believed() {
    let open = Gate::new("pay-1-0a1b2c", None, Vec::new());
    let by = |host: Option<&str>, site: Option<&str>| {
        let shown = Shown {
            host: host.map(str::as_bytes),
            fetch_site: site.map(str::as_bytes),
            ..shown(None, None)
        };
        open.identify(&shown).map(|caller| caller.name)
    };
    for host in [
        "127.0.0.1:9100",
        "[::1]:9100",
        "[::1]",
        "localhost:9100",
        "LOCALHOST",
        "10.0.0.1",
    ] {
        assert_eq!(by(Some(host), None).as_deref(), Ok("anybody"), "{host}");
    }
    assert!(by(None, Some("same-origin")).is_ok());
    for host in [
        "evil.example:9100",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "127.0.0.1:x",
    ] {
        assert_eq!(by(Some(host), None), Err(AuthError::OtherSite), "{host}");
    }
    for site in ["cross-site", "same-site"] {
        assert_eq!(by(Some("127.0.0.1"), Some(site)), Err(AuthError::OtherSite));
        let shown = Shown {
            fetch_site: Some(site.as_bytes()),
            ..shown(Some("Bearer an-admin-token-0123456789"), None)
        };
        assert_eq!(gate().identify(&shown), Err(AuthError::OtherSite));
    }
}
