//! Who sends the requests of a connection, and whether that one may: its peer, or the client that a trusted proxy names.

use std::net::SocketAddr;
use std::time::Instant;

use super::Peers;
use super::channel::{ProxyHeaderError, Reader};
use super::closing::CloseReason;
use super::context::EdgeContext;
use super::framing::Head;
use super::proxy::forwarded_for;
use super::refusal::Refusal;

/// The peer of one connection.
pub struct Peer {
    /// Who has connected, to this port or to the proxy before it.
    pub address: SocketAddr,
    /// It is a proxy that names its client in each request.
    forwards: bool,
}

impl Peer {
    /// Has connected from `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            forwards: false,
        }
    }

    /// Learns who has connected, and whether they may.
    pub fn arrive(
        &mut self,
        context: &EdgeContext,
        reader: &mut Reader<'_>,
        input: &mut Vec<u8>,
        deadline: Instant,
    ) -> Result<(), CloseReason> {
        let peers = context.peers();
        if peers.trusted_proxies.contains(self.address.ip()) {
            self.forwards = !peers.proxy_protocol;
            if peers.proxy_protocol {
                match reader.read_proxy_header(input, deadline) {
                    Ok(source) => self.address = source.unwrap_or(self.address),
                    Err(ProxyHeaderError::Other) => return Err(Refusal::NoProxyHeader.into()),
                    Err(ProxyHeaderError::Gone) => return Err(CloseReason::Quietly),
                }
            }
        }
        if self.forwards {
            return Ok(());
        }
        admit(context, &peers, self.address)?;
        Ok(())
    }

    /// Who sends the request of `head`, and whether they may: asked for each request, since the list may have changed.
    pub fn client(
        &self,
        head: &Head<'_, '_>,
        context: &EdgeContext,
    ) -> Result<SocketAddr, Refusal> {
        let peers = context.peers();
        let mut client = self.address;
        if self.forwards {
            let hop = self.address.ip();
            let ip = forwarded_for(head.headers, hop, &peers.trusted_proxies);
            if ip != hop {
                client = SocketAddr::new(ip, 0);
            }
        }
        admit(context, &peers, client)?;
        Ok(client)
    }
}

/// Whether `peer` may connect, by today's list.
fn admit(context: &EdgeContext, peers: &Peers, peer: SocketAddr) -> Result<(), Refusal> {
    if peers.allow.admit(peer.ip()) {
        return Ok(());
    }
    let name = context.table.name;
    log::debug!("{name}: {} is not in {name}.allow", peer.ip());
    Err(Refusal::Forbidden)
}
