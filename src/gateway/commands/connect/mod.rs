//! `connect`: paid remote servers as a stdio MCP server, for hosts that launch programs.
//!
//! ```text
//! host ── stdin/stdout ── bridge ── front ── one server, or several (many)
//! ```
//!
//! Messages pass as they are, but for what the host should know of money: prices in the lists, what was spent as a
//! resource, a question to the person where the policy wants one. Payment happens underneath, inside the budget and the
//! policy that were given at the start. Nothing that the model says can change them.

mod bridge;
mod elicit;
mod front;
mod many;
mod prices;
mod spending;

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use self::bridge::Bridge;
use self::elicit::Elicitation;
use self::front::Front;
use self::many::Many;
use super::call::payment_remark;
use crate::client::{ClientPayments, PaidClient, with_client_payments};
use crate::gateway::args::ConnectArgs;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::{shutdown, wire_up};
use crate::payment::PriceRange;
use crate::transport::MessageChannel;

/// What is behind the front: one server, or several that look like one.
trait Upstream: MessageChannel {
    /// The advertised price of a capability, by the name that the host knows it under.
    fn price_of(&self, notation: &str) -> Option<PriceRange>;
}

impl Upstream for PaidClient {
    fn price_of(&self, notation: &str) -> Option<PriceRange> {
        self.advertised(notation)
    }
}

pub(super) async fn run(args: &ConnectArgs) -> Outcome {
    let stop = shutdown::requested()?;
    let names = names(args)?;
    let person = Arc::new(Elicitation::default());
    let patience = Duration::from_secs(args.link.timeout);
    let connected = async {
        let payments = wire_up::client_payments(&args.paying, Some(person.clone()), |event| {
            if let Some(remark) = payment_remark(event) {
                warn!("{remark}");
            }
        })
        .await?;
        Outcome::Ok((connect(args, &names, &payments, patience).await?, payments))
    };
    let (connected, payments) = tokio::select! {
        connected = connected => connected?,
        () = stop.cancelled() => return Ok(()),
    };
    let front = Arc::new(Front::new(connected, payments, person));
    let bridge = Arc::new(Bridge::new(front, tokio::io::stdout()));
    let outcome = tokio::select! {
        outcome = bridge.carry(tokio::io::stdin(), patience) => outcome,
        () = stop.cancelled() => Ok(()),
    };
    bridge.close().await;
    outcome
}

/// `NAME=SERVER`, as they were given; no name for a single server.
fn names(args: &ConnectArgs) -> Outcome<Vec<(String, String)>> {
    if let Some(server) = &args.server {
        return Ok(vec![(String::new(), server.clone())]);
    }
    let mut names: Vec<(String, String)> = Vec::new();
    for given in &args.servers {
        let wrong = || {
            Failure::usage(format!(
                "--server: {given:?} must be NAME=SERVER, with a name of a-z, 0-9 and '-' that begins with a letter"
            ))
        };
        let (name, server) = given.split_once('=').ok_or_else(wrong)?;
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.bytes().all(legal) {
            return Err(wrong());
        }
        if names.iter().any(|(known, _)| known == name) {
            return Err(Failure::usage(format!(
                "--server: the name {name:?} is given twice"
            )));
        }
        names.push((name.to_owned(), server.to_owned()));
    }
    Ok(names)
}

async fn connect(
    args: &ConnectArgs,
    names: &[(String, String)],
    payments: &ClientPayments,
    patience: Duration,
) -> Outcome<Arc<dyn Upstream>> {
    let mut servers = Vec::new();
    for (name, server) in names {
        let transport = wire_up::link(server, &args.link).await?;
        let transport = wire_up::behind_the_payer(transport)?;
        // One budget, one policy, one set of books for all of them.
        servers.push((
            name.clone(),
            with_client_payments(transport, payments.clone()),
        ));
    }
    Ok(match servers.as_slice() {
        [(name, only)] if name.is_empty() => Arc::clone(only) as Arc<dyn Upstream>,
        _ => Arc::new(Many::new(servers, patience)),
    })
}
