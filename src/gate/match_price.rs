//! First stage: is this request priced, and what exactly does it ask for?

use std::sync::Arc;

use super::price_list::{Listed, PriceList};
use crate::payment::{Invocation, PricedCapability};
use crate::transport::Origin;
use crate::wire::{Request, invocation_identity, method, parse_strict};

/// What a request is to the price list.
#[derive(Debug)]
pub(super) enum PriceMatch {
    /// Nothing in it costs anything.
    Free,
    /// It costs what `listed` says.
    Priced {
        listed: Arc<PricedCapability>,
        invocation: Box<Invocation>,
    },
    /// It cannot be told what it costs; the text is for the client.
    Refused(&'static str),
}

/// Finds the entry that prices `request`.
///
/// What cannot be read in one way only is refused rather than served free: repeated keys, a priced method without a name,
/// a URI whose spellings are priced differently. The identity is computed here, from what the client sent, before
/// anything is added to the params.
pub(super) fn match_price(prices: &PriceList, request: &Request, origin: &Origin) -> PriceMatch {
    if !prices.prices_method(&request.method) {
        return PriceMatch::Free;
    }
    let params = match request
        .params
        .as_deref()
        .map(|params| parse_strict(params.get()))
        .transpose()
    {
        Ok(params) => params,
        Err(_) => return PriceMatch::Refused("params are ambiguous"),
    };
    let name = params
        .as_ref()
        .and_then(|params| method::capability_name(&request.method, &params.value));
    if name.is_none() && prices.needs_name(&request.method) {
        return PriceMatch::Refused("params must name what is called");
    }
    let listed = match prices.find(&request.method, name) {
        Listed::Free => return PriceMatch::Free,
        Listed::Ambiguous => return PriceMatch::Refused("write the URI in its normal form"),
        Listed::Priced(listed) => listed,
    };
    let Ok(identity) = invocation_identity(&request.method, params.as_ref()) else {
        return PriceMatch::Refused("a number in params is beyond 2^53 - 1");
    };
    let name = name.map(str::to_owned);
    let value = params.map(|params| params.value).unwrap_or_default();
    let invocation = Invocation::new(
        origin.client,
        origin.event,
        request.method.clone(),
        name,
        value,
        identity,
    );
    PriceMatch::Priced {
        listed,
        invocation: Box::new(invocation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::{ClientPubkey, RequestEventId, Timestamp};
    use crate::wire::Message;

    fn matched(params: &str) -> PriceMatch {
        let prices = PriceList::new(vec!["tool:paid=7 sat".parse().unwrap()]).unwrap();
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let Ok(Message::Request(request)) = Message::parse(&text) else {
            panic!("{text}")
        };
        let origin = Origin::new(
            ClientPubkey::from_bytes([1; 32]),
            RequestEventId::from_bytes([2; 32]),
            Timestamp::from_secs(1),
        );
        match_price(&prices, &request, &origin)
    }

    #[test]
    fn free_is_free_and_priced_is_priced() {
        assert!(matches!(matched(r#"{"name":"other"}"#), PriceMatch::Free));
        assert!(matches!(
            matched(r#"{"name":"other","arguments":{"id":9007199254740993}}"#),
            PriceMatch::Free
        ));
        assert!(matches!(
            matched(r#"{"name":"paid"}"#),
            PriceMatch::Priced { .. }
        ));
    }

    #[test]
    fn what_could_be_read_as_something_else_is_refused() {
        for params in [
            r#"{"name":"other","name":"paid"}"#,
            r#"{"name":["paid"]}"#,
            r#"{"arguments":{}}"#,
            r#"["paid"]"#,
            r#"{"name":"paid","arguments":{"id":9007199254740993}}"#,
        ] {
            assert!(
                matches!(matched(params), PriceMatch::Refused(_)),
                "{params}"
            );
        }
    }
}
