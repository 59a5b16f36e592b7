//! The REST interface of LNbits, as much as is needed of it. One question each; what the answers mean is for the two
//! sides to say.

use std::fmt;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use reqwest::{RequestBuilder, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::config::LnbitsConfig;
use super::error::ApiError;
use super::payment::{Looked, ORDER, Page, Payment, Wallet};
use crate::error::Result;
use crate::payment::Timestamp;
use crate::rails::http::{Answer, Http};

/// The longest answer about one payment.
const LONGEST: usize = 64 * 1024;
/// The longest page of payments.
const LONGEST_PAGE: usize = 4 * 1024 * 1024;
/// How many payments are on one page.
pub(super) const PAGE: usize = 200;
/// How many rows may have to be looked through for the one that was ordered, where LNbits cannot search for it.
const RECENT: usize = 50;

/// One wallet of one LNbits server, as one of its keys opens it.
#[derive(Clone)]
pub(super) struct Api {
    http: Http,
    base: Url,
    host: String,
    payment_timeout: Duration,
}

impl Api {
    pub(super) fn new(config: &LnbitsConfig) -> Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("x-api-key"), config.key.header()?);
        Ok(Self {
            http: Http::new(headers, config.timeout)?,
            base: config.url.clone(),
            host: config.host(),
            payment_timeout: config.payment_timeout,
        })
    }

    /// Where it is, for logs and errors.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn http(&self) -> &Http {
        &self.http
    }

    /// The wallet that the key opens.
    pub(super) async fn wallet(&self) -> Result<Wallet, ApiError> {
        self.ask(self.get(&["wallet"], &[]), LONGEST).await
    }

    /// Has an invoice made.
    pub(super) async fn make_invoice(&self, order: &InvoiceOrder<'_>) -> Result<Payment, ApiError> {
        let mut body = json!({
            "out": false,
            "unit": "sat",
            "amount": order.sats,
            "memo": order.memo,
            "expiry": order.expiry_secs,
            "external_id": order.key,
            "extra": { ORDER: order.key },
        });
        if let Some(webhook) = order.webhook {
            body["webhook"] = webhook.into();
        }
        self.ask(self.post(&body), LONGEST).await
    }

    /// Pays an invoice. Takes the admin key.
    pub(super) async fn pay(&self, invoice: &str) -> Result<Payment, ApiError> {
        let body = json!({ "out": true, "bolt11": invoice });
        let request = self.post(&body).timeout(self.payment_timeout);
        self.ask(request, LONGEST).await
    }

    /// The row of `payment_hash`; of two (a wallet that paid itself), the outgoing one.
    pub(super) async fn payment(&self, payment_hash: &str) -> Result<Payment, ApiError> {
        let looked: Looked = self
            .ask(self.get(&["payments", payment_hash], &[]), LONGEST)
            .await?;
        let Some(row) = looked.details else {
            // It answers anybody who knows the hash, and shows the row to its wallet only.
            return Err(ApiError::Invalid(
                "it knows the payment, but not as one of the wallet of this key",
            ));
        };
        let success = row.state() == Some(super::payment::State::Success);
        if success != looked.paid {
            return Err(ApiError::Invalid(
                "it says in one answer that the payment is paid and that it is not",
            ));
        }
        if row.payment_hash != payment_hash {
            return Err(ApiError::Invalid(
                "it answered about another payment than the one asked about",
            ));
        }
        Ok(row)
    }

    /// The row of `payment_hash` on one side only: what comes in, or what goes out.
    pub(super) async fn payment_on_side(
        &self,
        payment_hash: &str,
        incoming: bool,
    ) -> Result<Option<Payment>, ApiError> {
        let side = if incoming { "amount[gt]" } else { "amount[lt]" };
        let query = [("payment_hash", payment_hash), (side, "0"), ("limit", "10")];
        let rows = self.page(&query).await?;
        // A filter that this version does not know is ignored by it.
        Ok(rows
            .into_iter()
            .find(|row| row.payment_hash == payment_hash && row.is_incoming() == incoming))
    }

    /// The invoice that was made for the order `key`, if there is one.
    pub(super) async fn invoice_for(&self, key: &str) -> Result<Option<Payment>, ApiError> {
        let recent = RECENT.to_string();
        let query = [
            ("external_id", key),
            ("amount[gt]", "0"),
            ("sortby", "time"),
            ("direction", "desc"),
            ("limit", &recent),
        ];
        let rows = self.page(&query).await?;
        Ok(rows
            .into_iter()
            .find(|row| row.is_for(key) && row.is_incoming()))
    }

    /// Page number `number` of what was paid of the invoices made at or after `made_since`, the latest first.
    pub(super) async fn settled(
        &self,
        made_since: Timestamp,
        number: usize,
    ) -> Result<Vec<Payment>, ApiError> {
        let since = made_since.as_secs().to_string();
        let (limit, offset) = (PAGE.to_string(), (number * PAGE).to_string());
        let query = [
            ("status", "success"),
            ("amount[gt]", "0"),
            ("time[ge]", &since),
            ("sortby", "time"),
            ("direction", "desc"),
            ("limit", &limit),
            ("offset", &offset),
        ];
        self.page(&query).await
    }

    /// The address of something below `/api/v1`.
    pub(super) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // It is an address of the web, so it has a path; a test says so.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        url
    }

    async fn page(&self, query: &[(&str, &str)]) -> Result<Vec<Payment>, ApiError> {
        let page: Page = self
            .ask(self.get(&["payments", "paginated"], query), LONGEST_PAGE)
            .await?;
        Ok(page.data)
    }

    fn get(&self, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.get(url)
    }

    fn post(&self, body: &Value) -> RequestBuilder {
        self.http
            .post(self.url(&["payments"]))
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        most: usize,
    ) -> Result<T, ApiError> {
        let answer: Answer = self.http.send(request, most).await?;
        if !(200..300).contains(&answer.status) {
            return Err(ApiError::of(&answer));
        }
        // What serde says of it would repeat parts of it.
        serde_json::from_slice(&answer.body)
            .map_err(|_| ApiError::Invalid("its answer is not one of LNbits"))
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Api").field(&self.host).finish()
    }
}

/// An invoice to be made.
pub(super) struct InvoiceOrder<'a> {
    /// The name of the order, by which the invoice is found again.
    pub(super) key: &'a str,
    pub(super) sats: u64,
    pub(super) memo: &'a str,
    pub(super) expiry_secs: u64,
    /// Where LNbits calls when it is paid.
    pub(super) webhook: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_built_below_that_of_lnbits_whatever_is_in_them() {
        for (base, expected) in [
            (
                "https://example.com",
                "https://example.com/api/v1/payments/a%2F..%2Fb%3Fc",
            ),
            (
                "https://example.com/sub/",
                "https://example.com/sub/api/v1/payments/a%2F..%2Fb%3Fc",
            ),
            (
                "https://example.com/sub",
                "https://example.com/sub/api/v1/payments/a%2F..%2Fb%3Fc",
            ),
        ] {
            let api = Api::new(&LnbitsConfig::new(base, "5ec7e7").unwrap()).unwrap();
            assert_eq!(api.url(&["payments", "a/../b?c"]).as_str(), expected);
            assert!(!format!("{api:?}").contains("5ec7e7"));
        }
    }
}
