//! Until when the certificates of the listeners are good.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::registered;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Debug)]
pub(super) struct CertificateGauges(Family<ListenerLabels, Gauge>);

impl CertificateGauges {
    pub fn register(registry: &mut Registry) -> Self {
        Self(registered(
            registry,
            "payrelay_certificate_not_after_seconds",
            "Unix time at which the certificate of a listener ends",
        ))
    }

    /// `ends`: the key of the listener's certificate (`http.tls`), and its end in Unix seconds.
    pub fn set(&self, ends: &[(&'static str, i64)]) {
        for &(listener, end) in ends {
            self.0.get_or_create(&ListenerLabels { listener }).set(end);
        }
    }
}
