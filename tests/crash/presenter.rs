//! Somebody who pays by challenge, once, and presents the same credential until the call is served, whoever dies meanwhile.
//!
//! Who has paid, or whose payment nobody knows the outcome of, and is asked to pay something else has been robbed. What was
//! served is asked for again, by the same request and by a new one with the same credential, and must be the same.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::line::{Line, Request, Way};
use super::shop::{PATIENCE, Shop};

/// How long a client waits between two requests.
const POLL: Duration = Duration::from_millis(150);

/// What a challenge is paid with.
pub(crate) trait Means {
    /// The method of the challenges that it pays.
    const METHOD: &str;

    /// Does what makes a credential of `challenge`, and says what goes into it.
    async fn pay(&self, challenge: &Value) -> Value;

    /// What is wrong with being asked for money by the `data` of an error now, if anything is.
    fn objection(&self, data: &Value) -> Option<String>;
}

/// See the [module](self).
pub(crate) struct Presenter<'r, M> {
    shop: &'r Shop,
    line: Line<'r>,
    means: &'r M,
    /// Once after each restart it asks without its credential, as one would that has forgotten it.
    forgetful: bool,
    stories: &'r Mutex<Vec<String>>,
    /// The challenges that it made a credential of.
    paid: HashSet<String>,
    credential: Option<Value>,
    /// How many processes had become ready when it last forgot.
    forgot_at: usize,
}

impl<'r, M: Means> Presenter<'r, M> {
    pub(crate) fn new(
        shop: &'r Shop,
        (way, forgetful): (Way, bool),
        means: &'r M,
        stories: &'r Mutex<Vec<String>>,
    ) -> Self {
        Self {
            shop,
            line: Line::new(shop, way),
            means,
            forgetful,
            stories,
            paid: HashSet::new(),
            credential: None,
            forgot_at: 1,
        }
    }

    /// Buys. Fails if it is turned away, or robbed.
    pub(crate) async fn buy(mut self) -> Result<(), String> {
        let outcome = timeout(PATIENCE, self.until_served()).await;
        outcome.unwrap_or_else(|_| Err("was turned away".to_owned()))
    }

    async fn until_served(&mut self) -> Result<(), String> {
        loop {
            let (request, answer) = self.ask().await?;
            if answer["result"].is_object() {
                self.is_its_own(&answer)?;
                return self.ask_again(&request, &answer).await;
            }
            let listed = answer["error"]["data"]["challenges"].as_array();
            let mut payable = listed.into_iter().flatten();
            let challenge = payable.find(|challenge| {
                let id = challenge["id"].as_str().unwrap();
                challenge["method"] == M::METHOD && !self.paid.contains(id)
            });
            match challenge {
                Some(challenge) => {
                    let id = challenge["id"].as_str().unwrap();
                    self.paid.insert(id.to_owned());
                    let payload = self.means.pay(challenge).await;
                    self.tell(&format!("has a credential for the challenge {}", &id[..8]));
                    self.credential = Some(json!({"challenge": challenge, "payload": payload}));
                }
                None => sleep(POLL).await,
            }
        }
    }

    /// Asks anew, with the credential if there is one and it is not forgotten.
    async fn ask(&mut self) -> Result<(Request, Value), String> {
        let openings = self.line.openings();
        let forgets = self.forgetful && openings > self.forgot_at;
        self.forgot_at = openings.max(1);
        let credential = self.credential.clone().filter(|_| !forgets);
        let mut params = json!({"name": "record", "arguments": {"call": 0, "ms": 0}});
        if let Some(credential) = &credential {
            params["_meta"] = json!({"org.paymentauth/credential": credential});
        }
        let request = self.line.call(&params);
        let with = if credential.is_some() {
            "with"
        } else {
            "without"
        };
        self.tell(&format!("asks {with} a credential"));
        let answer = self.line.ask(&request).await;
        self.tell(&format!(
            "is answered {}",
            answer.get("error").unwrap_or(&answer["result"])
        ));
        match self.means.objection(&answer["error"]["data"]) {
            Some(objection) => Err(objection),
            None => Ok((request, answer)),
        }
    }

    fn is_its_own(&self, answer: &Value) -> Result<(), String> {
        if self.paid.is_empty() {
            return Err("was served without having paid".to_owned());
        }
        let text = answer["result"]["content"][0]["text"].as_str();
        let receipt = &answer["result"]["_meta"]["org.paymentauth/receipt"];
        let of_its_own = receipt["challengeId"]
            .as_str()
            .is_none_or(|id| self.paid.contains(id));
        if text != Some("0") || !of_its_own {
            return Err(format!("got the result of another call: {answer}"));
        }
        Ok(())
    }

    /// What was served is the same for the same request, and for a new one with the same credential.
    async fn ask_again(&mut self, request: &Request, served: &Value) -> Result<(), String> {
        let again = self.line.ask(request).await;
        if again != *served {
            return Err(format!("got another answer for the same request: {again}"));
        }
        self.forgetful = false;
        let (_, again) = self.ask().await?;
        let result = &again["result"];
        let receipt = &result["_meta"]["org.paymentauth/receipt"];
        // Who was served without a credential had no receipt.
        let had = served["result"].pointer("/_meta/org.paymentauth~1receipt");
        if result["content"] != served["result"]["content"]
            || !receipt["challengeId"].is_string()
            || had.is_some_and(|had| had != receipt)
        {
            return Err(format!("got another result for its credential: {again}"));
        }
        Ok(())
    }

    fn tell(&self, what: &str) {
        let at = self.shop.began.elapsed().as_millis();
        let mut stories = self.stories.lock().unwrap();
        stories.push(format!("{at:>6} ms  the client {what}"));
    }
}
