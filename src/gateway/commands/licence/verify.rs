//! `licence verify`: does this public licence count? Its signature says who issued it to whom; its server's relays say whether it
//! was taken back.

use std::time::Duration;

use serde_json::json;

use crate::entitlement::licence::{
    PublicLicence, REVOCATION_KIND, is_public, read_public, read_revocation,
};
use crate::gateway::args::VerifyLicenceArgs;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::{config, output};
use crate::payment::{BearerToken, Clock, SystemClock};
use crate::transport::nostr::{find_events, parse_server};

pub(super) async fn run(args: &VerifyLicenceArgs) -> Outcome {
    let shown = args.file.display();
    // No secret: it is worth nothing to anybody but its holder.
    let text = std::fs::read_to_string(&args.file)
        .map_err(|error| Failure::usage(format!("FILE: cannot read {shown}: {error}")))?;
    let token = BearerToken::new(text.trim())
        .filter(is_public)
        .ok_or_else(|| {
            Failure::usage(
                "FILE: must hold a public licence (nostr.…); one that is signed with a secret can be verified by those who have \
                 the secret, or by its issuer",
            )
        })?;
    let licence = read_public(&token).map_err(|error| Failure::failed(error.to_string()))?;
    licence
        .check(SystemClock.now())
        .map_err(|error| Failure::failed(error.to_string()))?;
    expect(args, &licence)?;
    let revoked = match args.relays.is_empty() {
        true => None,
        false => Some(was_taken_back(args, &licence).await?),
    };
    if revoked == Some(true) {
        return Err(Failure::failed(format!(
            "licence {}: revoked",
            licence.id()
        )));
    }
    print(args, &licence, revoked);
    Ok(())
}

/// Whether it is for whom it should be for.
fn expect(args: &VerifyLicenceArgs, licence: &PublicLicence) -> Outcome {
    if let Some(server) = &args.server {
        let (server, _) =
            parse_server(server).map_err(|error| Failure::usage(format!("--server: {error}")))?;
        if server != licence.server {
            return Err(Failure::failed("server_mismatch: another server signed it"));
        }
    }
    if let Some(client) = &args.client
        && config::client("--client", client)? != licence.holder
    {
        return Err(Failure::failed("it is for another client"));
    }
    Ok(())
}

/// Whether its server says, on the relays that were named, that it was taken back.
async fn was_taken_back(args: &VerifyLicenceArgs, licence: &PublicLicence) -> Outcome<bool> {
    let patience = Duration::from_secs(args.timeout);
    let found = find_events(
        &licence.server,
        (REVOCATION_KIND, licence.id()),
        &args.relays,
        patience,
    )
    .await?;
    let revocations = found.iter().filter_map(|json| read_revocation(json).ok());
    Ok(revocations
        .into_iter()
        .any(|revoked| revoked.server == licence.server && revoked.id == licence.id()))
}

fn print(args: &VerifyLicenceArgs, licence: &PublicLicence, revoked: Option<bool>) {
    let claims = licence.claims.as_map();
    if args.json {
        output::json(&json!({
            "event": "licence",
            "id": licence.id(),
            "server": licence.server,
            "client": licence.holder,
            "capabilities": claims.get("capabilities"),
            "issued_at": claims.get("iat"),
            "expires_at": claims.get("exp"),
            "revoked": revoked,
        }));
        return;
    }
    output::line(&format!("licence  {}", output::harmless(licence.id())));
    output::line(&format!("server   {}", licence.server));
    output::line(&format!("client   {}", licence.holder));
    let covers = claims.get("capabilities").map(ToString::to_string);
    let covers = covers.unwrap_or_else(|| "everything".to_owned());
    output::line(&format!("covers   {}", output::harmless(&covers)));
    if let Some(until) = licence.claims.expires_at() {
        let until = crate::entitlement::licence::rfc3339(until);
        output::line(&format!("until    {until}"));
    }
    output::remark(match revoked {
        Some(_) => "it counts; the relays know of no revocation",
        None => {
            "it is genuine; whether it was taken back is known to its server's relays (--relay)"
        }
    });
}
