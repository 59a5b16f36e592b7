//! `relay`: a relay for development, which forgets everything when it ends.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;

use crate::gateway::args::RelayArgs;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::{output, shutdown};
use crate::transport::nostr::DevRelay;

pub(super) async fn run(args: &RelayArgs) -> Outcome {
    if args.listen.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
        return Err(Failure::usage(
            "--listen must be 127.0.0.1:PORT: a relay for development is not for others",
        ));
    }
    let stop = shutdown::requested()?;
    let relay = DevRelay::start(args.listen.port()).await?;
    if args.json {
        output::json(&json!({ "event": "ready", "url": relay.url() }));
    } else {
        output::line(&format!("relay ready at {}", relay.url()));
    }
    stop.cancelled().await;
    relay.shutdown();
    Ok(())
}
