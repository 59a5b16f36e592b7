//! One websocket to one relay.
//!
//! Made by hand for two reasons: Nagle's algorithm is off, which takes a round trip from 44 ms to 0.3 ms, and the TLS
//! provider is named, so that no other crate of the program can change it or make it ambiguous.

use std::sync::Arc;

use nostr::RelayUrl;
use tokio::net::TcpStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use super::MAX_SOCKET_FRAME;
use super::link::shown;
use crate::error::{Error, Result};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens a connection to a `ws://` or `wss://` address.
pub(super) async fn connect(url: &RelayUrl) -> Result<Socket> {
    let unreachable = || Error::transport(format!("cannot connect to {}", shown(url)));
    let address: &nostr::Url = url.into();
    let host = address.host_str().ok_or_else(unreachable)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = address.port_or_known_default().ok_or_else(unreachable)?;
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|source| unreachable().with_source(source))?;
    stream
        .set_nodelay(true)
        .map_err(|source| unreachable().with_source(source))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_SOCKET_FRAME))
        .max_frame_size(Some(MAX_SOCKET_FRAME));
    let connector = if address.scheme() == "wss" {
        Connector::Rustls(tls()?)
    } else {
        Connector::Plain
    };
    let (socket, _) =
        client_async_tls_with_config(address.as_str(), stream, Some(config), Some(connector))
            .await
            .map_err(|source| unreachable().with_source(source))?;
    Ok(socket)
}

fn tls() -> Result<Arc<ClientConfig>> {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| Error::transport("TLS is not available").with_source(source))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_can_be_set_up_without_a_default_provider() {
        assert!(tls().is_ok());
    }

    #[tokio::test]
    async fn a_dead_address_is_an_error_that_names_the_relay() {
        let url = RelayUrl::parse("ws://127.0.0.1:1").unwrap();
        let error = connect(&url).await.unwrap_err();
        assert!(error.to_string().contains("127.0.0.1"));
    }
}
