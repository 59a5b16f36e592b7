//! The talk with one wallet: one subscription for as long as it lasts, requests tied to their answers.
//!
//! An answer counts if the wallet signed it and it names a request that is waiting. So a stranger's, a replayed and a late
//! one change nothing. Silence is silence: what became of the request is then not known.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nostr::{Event, EventBuilder, Filter, Kind, Tag, TagKind, Timestamp};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::answer::{Abilities, read_answer};
use super::cipher::{self, Encryption};
use super::connection::NwcConnection;
use super::error::{Code, NwcError};
use super::listener::{Info, Listener, Notification};
use super::pending::Pending;
use super::{
    GET_INFO, INFO, NOTIFICATION_NIP04, NOTIFICATION_NIP44, PAY_INVOICE, REQUEST, RESPONSE,
};
use crate::error::Result;
use crate::relays::{Interest, Relays, SKEW, Subscription};

/// Notifications that wait to be taken. What finds no room is found by look-up.
const NOTIFICATIONS: usize = 1024;

/// How long a relay may take to hand out the info event that it keeps, once it is connected.
const INFO_WITHIN: Duration = Duration::from_secs(2);

/// How long a wallet may take to answer `get_info` before it is asked in the other encryption.
const PROBE: Duration = Duration::from_secs(8);

/// See the [module](self).
pub(super) struct NwcClient {
    connection: NwcConnection,
    relays: Relays,
    pending: Arc<Pending>,
    info: watch::Receiver<Option<Info>>,
    /// What worked, where no info event says what will.
    learned: Mutex<Option<Encryption>>,
    notifications: Mutex<Option<mpsc::Receiver<Notification>>>,
}

impl fmt::Debug for NwcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NwcClient")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl NwcClient {
    /// Connects, in the background, and stays connected until this is dropped. `notified`: notifications are wanted too.
    pub(super) fn start(connection: NwcConnection, notified: bool) -> Self {
        let ours = connection.keys.public_key();
        let mut kinds = vec![RESPONSE];
        if notified {
            kinds.extend([NOTIFICATION_NIP04, NOTIFICATION_NIP44]);
        }
        let by_wallet = Filter::new().author(connection.wallet);
        let to_us = by_wallet.clone().pubkey(ours);
        let subscription = Subscription {
            keys: connection.keys.clone(),
            interests: vec![
                Interest::Recent(to_us.kinds(kinds.into_iter().map(Kind::from))),
                Interest::Kept(by_wallet.kind(Kind::from(INFO))),
            ],
        };
        let (relays, deliveries) = Relays::spawn(connection.relays.clone(), &subscription);
        let pending = Arc::new(Pending::new(connection.wallet, relays.meanwhile()));
        let (listener, info, notifications) =
            Listener::new(connection.clone(), Arc::clone(&pending), NOTIFICATIONS);
        // It ends with the links, and they end with this.
        tokio::spawn(listener.run(deliveries));
        Self {
            connection,
            relays,
            pending,
            info,
            learned: Mutex::new(None),
            notifications: Mutex::new(Some(notifications)),
        }
    }

    /// Waits until one relay of the wallet has confirmed the subscription.
    pub(super) async fn ready(&self, patience: Duration) -> Result<()> {
        self.relays.ready(patience).await
    }

    /// What the wallet says by itself. There is one stream.
    pub(super) fn notifications(&self) -> Option<mpsc::Receiver<Notification>> {
        lock(&self.notifications).take()
    }

    /// What the wallet can do for this connection: its answer to `get_info`, or else its info event.
    pub(super) async fn abilities(
        &self,
        patience: Duration,
    ) -> std::result::Result<Abilities, NwcError> {
        let deadline = Instant::now() + patience;
        self.await_info(deadline).await;
        loop {
            let Some(info) = self.info.borrow().clone() else {
                return self.probe(deadline).await;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match self.ask(GET_INFO, json!({}), left.min(PROBE)).await {
                Ok(result) => {
                    let mut abilities = Abilities::read(&result);
                    if abilities.methods.is_none() {
                        abilities.methods = info.abilities.methods;
                    }
                    if abilities.notifications.is_empty() {
                        abilities.notifications = info.abilities.notifications;
                    }
                    return Ok(abilities);
                }
                Err(NwcError::Said(Code::Unauthorized, words)) => {
                    return Err(NwcError::Said(Code::Unauthorized, words));
                }
                // It does not offer get_info, or keeps to itself what it can do.
                Err(NwcError::Said(code, _)) if code.is_for_good() => return Ok(info.abilities),
                Err(error) if Instant::now() >= deadline => {
                    tracing::warn!(
                        wallet = self.connection.wallet(), %error,
                        "the wallet does not answer now; going by what it announced"
                    );
                    return Ok(info.abilities);
                }
                Err(NwcError::Silent) => {}
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    /// What the wallet has announced that it can do; one that has announced nothing is asked.
    pub(super) async fn announced_or_asked(
        &self,
        patience: Duration,
    ) -> std::result::Result<Abilities, NwcError> {
        let deadline = Instant::now() + patience;
        if lock(&self.learned).is_none() {
            self.await_info(deadline).await;
        }
        let announced = self
            .info
            .borrow()
            .as_ref()
            .map(|info| info.abilities.clone());
        match announced {
            Some(abilities) => Ok(abilities),
            None if lock(&self.learned).is_some() => Ok(Abilities::default()),
            None => self.probe(deadline).await,
        }
    }

    /// Asks a wallet that has announced nothing: first as the first wallets did, then as the newest do.
    async fn probe(&self, deadline: Instant) -> std::result::Result<Abilities, NwcError> {
        loop {
            let mut refusal = NwcError::Silent;
            for encryption in [Encryption::Nip04, Encryption::Nip44] {
                let left = deadline.saturating_duration_since(Instant::now());
                match self
                    .ask_in(encryption, GET_INFO, &json!({}), left.min(PROBE))
                    .await
                {
                    Ok(result) => {
                        *lock(&self.learned) = Some(encryption);
                        return Ok(Abilities::read(&result));
                    }
                    Err(NwcError::Said(Code::UnsupportedEncryption, _) | NwcError::Silent) => {}
                    Err(NwcError::Said(Code::NotImplemented | Code::Restricted, _)) => {
                        *lock(&self.learned) = Some(encryption);
                        return Ok(Abilities::default());
                    }
                    Err(error) => refusal = error,
                }
            }
            if Instant::now() >= deadline || refusal.code() == Some(Code::Unauthorized) {
                return Err(refusal);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn await_info(&self, deadline: Instant) {
        let mut info = self.info.clone();
        let until = deadline.min(Instant::now() + INFO_WITHIN);
        let _ = timeout_at(until, info.wait_for(Option::is_some)).await;
    }

    fn encryption(&self) -> Encryption {
        let announced = self.info.borrow().as_ref().map(|info| info.encryption);
        let learned = *lock(&self.learned);
        learned.or(announced).unwrap_or(Encryption::Nip04)
    }

    /// Asks the wallet, once, and waits for its answer.
    ///
    /// Dropping the future takes nothing back: what was asked for may happen.
    pub(super) async fn ask(
        &self,
        method: &'static str,
        params: Value,
        patience: Duration,
    ) -> std::result::Result<Value, NwcError> {
        let encryption = self.encryption();
        let answer = self.ask_in(encryption, method, &params, patience).await;
        // The wallet could not even read it.
        if let Err(NwcError::Said(Code::UnsupportedEncryption, _)) = answer {
            let other = encryption.other();
            let answer = self.ask_in(other, method, &params, patience).await;
            if !matches!(answer, Err(NwcError::Said(Code::UnsupportedEncryption, _))) {
                *lock(&self.learned) = Some(other);
            }
            return answer;
        }
        answer
    }

    async fn ask_in(
        &self,
        encryption: Encryption,
        method: &'static str,
        params: &Value,
        patience: Duration,
    ) -> std::result::Result<Value, NwcError> {
        let deadline = Instant::now() + patience;
        if self.relays.ready(patience).await.is_err() {
            return Err(NwcError::NotSent("no relay of the wallet can be reached"));
        }
        let request = self.request(encryption, method, params, patience)?;
        let (id, mut expected) = (request.id, self.pending.expect(request.id)?);
        let publishing = async {
            // Asked to pay twice, a wallet could answer "no" to the second while it pays the first.
            if method == PAY_INVOICE {
                self.relays.publish_once(&request).await
            } else {
                self.relays.publish(&request).await
            }
        };
        let waiting = async {
            match (&mut expected.answer).await {
                Ok(text) => read_answer(&text.map_err(NwcError::Garbage)?, method),
                Err(_) => Err(NwcError::Silent),
            }
        };
        tokio::pin!(publishing, waiting);
        let late = sleep_until(deadline);
        tokio::pin!(late);
        let mut published = false;
        loop {
            tokio::select! {
                // What came counts, even if the time is over.
                biased;
                answered = &mut waiting => return answered,
                sent = &mut publishing, if !published => {
                    published = true;
                    if let Err(error) = sent {
                        // The relay may have passed on what it says that it refused; an answer would tell.
                        tracing::warn!(
                            method, request = %id, wallet = self.connection.wallet(), %error,
                            "the wallet's relays do not take a request"
                        );
                        return Err(NwcError::Silent);
                    }
                }
                () = &mut late => return Err(NwcError::Silent),
            }
        }
    }

    fn request(
        &self,
        encryption: Encryption,
        method: &str,
        params: &Value,
        patience: Duration,
    ) -> std::result::Result<Event, NwcError> {
        let (keys, wallet) = (&self.connection.keys, self.connection.wallet);
        let text = json!({ "method": method, "params": params }).to_string();
        let content = cipher::seal(keys.secret_key(), &wallet, encryption, &text)
            .ok_or(NwcError::NotSent("the request is too long"))?;
        // Not to be acted on long after nobody expects it any more; but the wallet's clock may be ahead of ours.
        let expires = Timestamp::now() + (patience + SKEW).as_secs();
        let mut tags = vec![Tag::public_key(wallet), Tag::expiration(expires)];
        if encryption == Encryption::Nip44 {
            tags.push(Tag::custom(
                TagKind::custom("encryption"),
                [encryption.tag()],
            ));
        }
        EventBuilder::new(Kind::from(REQUEST), content)
            .tags(tags)
            .sign_with_keys(keys)
            .map_err(|_| NwcError::NotSent("the request could not be signed"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
