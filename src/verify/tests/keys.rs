//! Keys as operators paste them, and what is shown of them.

use super::*;

/// The first key of a PEM.
fn one_key(text: &str) -> Result<RsaKey, BadKey> {
    RsaKey::read_all(text, RsaBits::Usual).map(|mut keys| keys.swap_remove(0))
}

#[test]
fn a_certificate_gives_its_key_and_its_serial_number() {
    let pem = vector("wechatpay-v3", "platform_cert_pem");
    let certificate = one_key(&pem).expect("a certificate");
    assert_eq!(certificate.serial(), Some("D7CE59D1F522D701"));
    let key = one_key(&vector("wechatpay-v3", "platform_public_key_pem")).expect("a key");
    assert_eq!(key.serial(), None);
    // Before and after it may stand what tools print there.
    let noted = format!("Bag Attributes\n{}\n{pem}", pem.replace('\n', "\r\n"));
    assert_eq!(
        one_key(&noted).expect("the first").serial(),
        certificate.serial()
    );
    let bare: String = vector("alipay", "public_key_pem")
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    assert_eq!(
        one_key(&bare).expect("base64"),
        one_key(&vector("alipay", "public_key_pem")).expect("PEM")
    );
}

#[test]
fn a_broken_certificate_is_an_error_wherever_it_breaks() {
    use base64::Engine as _;
    let pem = vector("wechatpay-v3", "platform_cert_pem");
    let digits: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(digits)
        .expect("base64");
    let read = |der: &[u8]| {
        let digits = base64::engine::general_purpose::STANDARD.encode(der);
        one_key(&format!(
            "-----BEGIN CERTIFICATE-----\n{digits}\n-----END CERTIFICATE-----"
        ))
    };
    assert!(read(&der).is_ok());
    for cut in 0..der.len() {
        assert!(read(&der[..cut]).is_err(), "cut at {cut}");
    }
    // The first bytes say lengths and kinds: whatever they are made to say, it is an error or another key.
    for at in 0..40 {
        for byte in [0x00, 0x30, 0x7f, 0x80, 0x81, 0x82, 0x84, 0xff] {
            let mut other = der.clone();
            other[at] = byte;
            let _ = read(&other);
        }
    }
}

#[test]
fn no_debug_output_shows_a_secret() {
    let shown = format!(
        "{:?} {:?} {:?}",
        stripe(&["hunter2"]),
        ApiV3Key::new("hunter2-hunter2-hunter2-hunter2-").expect("32 bytes"),
        of_route("verify = \"token\"\nsecrets = [\"hunter2\"]\ntoken = \"basic\""),
    );
    assert!(
        !shown.contains("hunter2") && !shown.contains("104, 117, 110"),
        "{shown}"
    );
}
