//! Who has bought what, and the page for those who have not.
//!
//! What dies where: the purchase is on the books before Stripe is asked for its page, under the name that the page is made
//! under, so the same page comes of asking again; and the page is on the books before anybody sees it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::offer::sale;
use super::plan::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{
    Begun, Ledger, LicenceBooks, OpenLimits, Purchase, PurchaseBooks, PurchaseState, PurchaseWord,
    Usage,
};
use crate::payment::{
    ClientPubkey, Clock, EntitlementClaim, RequestEventId, Sale, SystemClock, Timestamp,
};
use crate::rails::stripe::{
    CheckoutHints, PlanOrder, PurchaseReport, Standing, StripeClient, StripeError,
};

/// The status of a page whose money is on its way.
pub(super) const PROCESSING: &str = "processing";

/// One purchase is asked about on behalf of a caller at most this often.
const ASKED_EVERY: Duration = Duration::from_secs(2);
/// How many such questions are remembered.
const ASKED_AT_MOST: usize = 10_000;

/// The numbers and rules that a desk follows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeskSettings {
    /// How long a page stands; Stripe allows half an hour to a day.
    pub page_ttl: Duration,
    /// How many pages may be open.
    pub limits: OpenLimits,
    /// How long a subscription counts beyond what is known to be paid, while Stripe cannot be asked.
    pub slack: Duration,
    /// Demands are said as results of tools, for hosts that show nobody the data of an error.
    pub as_result: bool,
}

impl Default for DeskSettings {
    fn default() -> Self {
        Self {
            page_ttl: Duration::from_secs(3600),
            limits: OpenLimits::default(),
            slack: Duration::from_secs(86_400),
            as_result: false,
        }
    }
}

/// Sells plans, and keeps what was bought true.
pub struct Desk {
    pub(super) client: StripeClient,
    pub(super) books: Arc<dyn PurchaseBooks>,
    pub(super) clock: Arc<dyn Clock>,
    plans: Vec<Arc<Plan>>,
    pub(super) settings: DeskSettings,
    /// Where it is said that the page of a single call may have been paid.
    pub(super) hints: Option<CheckoutHints>,
    /// The entries of single calls, from which refunded ones are withdrawn.
    pub(super) ledger: Option<Arc<dyn Ledger>>,
    /// The licences of our own, of which refunded ones are taken back.
    pub(super) licences: Option<Arc<dyn LicenceBooks>>,
    /// When purchases were last asked about for a caller.
    asked: Mutex<HashMap<RequestEventId, Timestamp>>,
    /// Something waits to be treated or reported.
    pub(super) work: Notify,
    /// Use that could not be written down yet.
    pub(super) unwritten: Mutex<Vec<Usage>>,
}

/// How a client stands with a plan.
pub(super) enum Seen {
    /// It has it.
    Covered(Box<Purchase>),
    /// It can buy it here.
    Offered(Box<Sale>),
    /// It has it, and owes for it.
    Due(String),
    /// It can buy it when others have paid or gone.
    Full,
}

impl Desk {
    /// Sells `plans` on the account of `client`, and keeps `books`.
    #[must_use]
    pub fn new(client: StripeClient, books: Arc<dyn PurchaseBooks>, plans: Vec<Plan>) -> Self {
        Self {
            client,
            books,
            clock: Arc::new(SystemClock),
            plans: plans.into_iter().map(Arc::new).collect(),
            settings: DeskSettings::default(),
            hints: None,
            ledger: None,
            licences: None,
            asked: Mutex::default(),
            work: Notify::new(),
            unwritten: Mutex::default(),
        }
    }

    /// Follows other rules.
    #[must_use]
    pub fn settings(mut self, settings: DeskSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Passes on what webhooks say of the pages of single calls.
    #[must_use]
    pub fn with_hints(mut self, hints: CheckoutHints) -> Self {
        self.hints = Some(hints);
        self
    }

    /// When a payment is given back, withdraws the right to a single call that was not made yet, and what was paid ahead.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Arc<dyn Ledger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// When a payment is given back, takes the licence back that it bought.
    #[must_use]
    pub fn with_licences(mut self, licences: Arc<dyn LicenceBooks>) -> Self {
        self.licences = Some(licences);
        self
    }

    /// The clock that the books are kept by; for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    pub(super) fn plans(&self) -> &[Arc<Plan>] {
        &self.plans
    }

    /// How the caller of `claim` stands with `plan`. Whoever has it is told by the books alone.
    pub(super) async fn see(&self, plan: &Plan, claim: &EntitlementClaim) -> Result<Seen> {
        let client = claim.invocation.client;
        let now = self.clock.now();
        let standing = self
            .books
            .standing_purchase(&client, &self.in_books(plan))
            .await?;
        let Some(purchase) = standing else {
            return self.begin(plan, claim).await;
        };
        if self.is_in_force(&purchase, now) {
            return Ok(Seen::Covered(Box::new(purchase)));
        }
        // Before anybody is asked to pay, or to pay again: has it been paid meanwhile?
        let has_page = purchase.session.is_some();
        let looked = has_page && self.may_ask(purchase.id, now);
        let purchase = match looked {
            true => self.look_at(&purchase, plan).await?,
            false => purchase,
        };
        match purchase.state {
            PurchaseState::Held if self.is_in_force(&purchase, now) => {
                Ok(Seen::Covered(Box::new(purchase)))
            }
            PurchaseState::Held => Err(Error::new(
                ErrorKind::Rail,
                "it is not known whether the subscription was paid on",
            )),
            PurchaseState::Open if purchase.is_payable(now) => self.offer(plan, purchase).await,
            // It may have been paid in its last minute, and another would be paid beside it.
            PurchaseState::Open if has_page && !looked => Err(Error::new(
                ErrorKind::Rail,
                "it is not known whether the page that ended was paid",
            )),
            // A second subscription beside one that is to be paid would charge twice.
            PurchaseState::Lapsed if purchase.subscription.is_some() => {
                Ok(Seen::Due(purchase.status))
            }
            PurchaseState::Open | PurchaseState::Lapsed | PurchaseState::Over => {
                self.begin(plan, claim).await
            }
        }
    }

    /// Whether `purchase` covers a call at `now`. What is paid for a period counts until its end is well behind both the
    /// period and the last word of Stripe: a renewal takes an hour, and an outage must not turn away who has paid.
    fn is_in_force(&self, purchase: &Purchase, now: Timestamp) -> bool {
        purchase.state == PurchaseState::Held
            && purchase.held_until.is_none_or(|until| {
                now < until
                    .max(purchase.seen_at.min(now))
                    .plus(self.settings.slack)
            })
    }

    async fn begin(&self, plan: &Plan, claim: &EntitlementClaim) -> Result<Seen> {
        let now = self.clock.now();
        let ttl = StripeClient::page_ttl(self.settings.page_ttl);
        let new = Purchase {
            id: claim.invocation.event,
            client: claim.invocation.client,
            plan: self.in_books(plan),
            amount: plan.due()?,
            state: PurchaseState::Open,
            status: "open".to_owned(),
            url: None,
            session: None,
            payment: None,
            subscription: None,
            customer: None,
            open_until: now.plus(ttl),
            held_until: None,
            withdrawn_until: None,
            made_at: now,
            seen_at: now,
        };
        match self.books.begin_purchase(new, self.settings.limits).await? {
            Begun::New(purchase) => self.offer(plan, purchase).await,
            Begun::Standing(purchase) if self.is_in_force(&purchase, now) => {
                Ok(Seen::Covered(Box::new(purchase)))
            }
            Begun::Standing(purchase) if purchase.is_payable(now) => {
                self.offer(plan, purchase).await
            }
            // This very request began a purchase that has come to nothing.
            Begun::Standing(_) => Err(Error::new(
                ErrorKind::Rail,
                "this request was answered before; a new one gets a new page",
            )),
            Begun::Full => Ok(Seen::Full),
        }
    }

    /// The page of `purchase`, made if there is none yet.
    async fn offer(&self, plan: &Plan, purchase: Purchase) -> Result<Seen> {
        let now = self.clock.now();
        let purchase = match purchase.session {
            Some(_) => purchase,
            None => match self.make_page(plan, &purchase).await {
                Ok(made) => made,
                Err(error) => return Err(self.give_up(purchase, error).await),
            },
        };
        let sale = sale(plan, &purchase, now, self.settings.as_result)?;
        Ok(Seen::Offered(Box::new(sale)))
    }

    async fn make_page(&self, plan: &Plan, purchase: &Purchase) -> Result<Purchase, Trouble> {
        let customer = self.customer(&purchase.client).await?;
        let (id, client) = (purchase.id.to_string(), purchase.client.to_string());
        let order = PlanOrder {
            purchase: &id,
            client: &client,
            customer: &customer,
            plan: plan.name(),
            price: plan.price(),
            mode: plan.mode(),
            quantity: plan.how_many(),
            amount: purchase.amount.as_ref(),
            success_url: &plan.success_url,
            cancel_url: plan.cancel_url.as_deref(),
            ends: purchase.open_until,
        };
        let page = self.client.make_page(&order).await?;
        let offered = self
            .books
            .offer_purchase(&purchase.id, &page.session, &page.url, page.ends);
        let offered = offered.await?;
        tracing::info!(
            purchase = %purchase.id, client_pubkey = purchase.client.short(), plan = plan.name(), "a page was made"
        );
        Ok(offered.ok_or_else(|| Error::ledger("the page is another purchase's"))?)
    }

    /// A page that Stripe will never make: the next call begins anew. Nobody has seen it, so nobody can pay it.
    async fn give_up(&self, purchase: Purchase, trouble: Trouble) -> Error {
        let error = match trouble {
            Trouble::Stripe(error) => error,
            Trouble::Ours(error) => return error,
        };
        if !error.may_pass() && !error.is_about_the_key() {
            let word = PurchaseWord::new(PurchaseState::Lapsed, "refused", self.clock.now());
            if let Err(error) = self.books.learn_purchase(&purchase.id, word).await {
                return error;
            }
        }
        error.into()
    }

    /// Who `client` is to Stripe. Never looked for by an address of mail, which anybody can type.
    async fn customer(&self, client: &ClientPubkey) -> Result<String, Trouble> {
        if let Some(customer) = self.books.customer_of(self.account(), client).await? {
            return Ok(customer);
        }
        let made = self.client.make_customer(&client.to_string()).await?;
        let kept = self.books.keep_customer(self.account(), client, &made);
        Ok(kept.await?)
    }

    /// Asks Stripe how `purchase` stands and writes it down: the one way in which anything is granted.
    pub(super) async fn look_at(
        &self,
        purchase: &Purchase,
        plan: &Plan,
    ) -> Result<Purchase, Trouble> {
        let Some(session) = &purchase.session else {
            return Ok(purchase.clone());
        };
        let asked_at = self.clock.now();
        let (id, client) = (purchase.id.to_string(), purchase.client.to_string());
        let expected = plan.expected((&id, &client), purchase.amount.as_ref());
        let report = match self.client.look_at(session, &expected).await {
            Ok(report) => report,
            Err(error) => {
                tracing::warn!(
                    purchase = %purchase.id, plan = plan.name(), error = &error as &dyn std::error::Error,
                    "it cannot be told how a purchase stands; nothing changes"
                );
                return Err(error.into());
            }
        };
        let word = word_of(report, plan, asked_at);
        Ok(self.learn(purchase, word).await?)
    }

    pub(super) async fn learn(&self, purchase: &Purchase, word: PurchaseWord) -> Result<Purchase> {
        let learned = self.books.learn_purchase(&purchase.id, word).await?;
        let (now, counted) = learned.ok_or_else(|| Error::ledger("no such purchase"))?;
        if counted && (now.state, &now.status) != (purchase.state, &purchase.status) {
            tracing::info!(
                purchase = %now.id, client_pubkey = now.client.short(), plan = now.plan, state = now.state.as_str(),
                status = now.status, "a purchase changed"
            );
        }
        Ok(now)
    }

    /// The plan of `purchase`, if it is still sold.
    pub(super) fn plan_of(&self, purchase: &Purchase) -> Option<&Arc<Plan>> {
        let plans = &mut self.plans.iter();
        plans.find(|plan| self.in_books(plan) == purchase.plan)
    }

    /// The name of `plan` in the books: what was bought with play money counts in test mode only.
    fn in_books(&self, plan: &Plan) -> String {
        match self.client.is_live() {
            true => plan.name().to_owned(),
            false => format!("test/{}", plan.name()),
        }
    }

    fn account(&self) -> &'static str {
        match self.client.is_live() {
            true => "stripe",
            false => "stripe-test",
        }
    }

    /// Clients that call again and again must not have Stripe asked at their pace.
    fn may_ask(&self, id: RequestEventId, now: Timestamp) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked
            .get(&id)
            .is_some_and(|at| now.since(*at) < ASKED_EVERY)
        {
            return false;
        }
        if asked.len() >= ASKED_AT_MOST {
            asked.retain(|_, at| now.since(*at) < ASKED_EVERY);
        }
        if asked.len() < ASKED_AT_MOST {
            asked.insert(id, now);
        }
        true
    }
}

/// Why Stripe could not be asked, or what it said not be written down.
pub(super) enum Trouble {
    Stripe(StripeError),
    Ours(Error),
}

impl From<StripeError> for Trouble {
    fn from(error: StripeError) -> Self {
        Self::Stripe(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Stripe(error) => error.into(),
            Trouble::Ours(error) => error,
        }
    }
}

/// What the books learn of a report.
fn word_of(report: PurchaseReport, plan: &Plan, asked_at: Timestamp) -> PurchaseWord {
    let (state, open_until) = match report.standing {
        Standing::Open => (PurchaseState::Open, None),
        Standing::UnderWay(until) => (PurchaseState::Open, Some(until)),
        Standing::Good => (PurchaseState::Held, None),
        Standing::PastDue if plan.counts_past_due() => (PurchaseState::Held, None),
        Standing::PastDue | Standing::Bad => (PurchaseState::Lapsed, None),
        Standing::Over => (PurchaseState::Over, None),
    };
    let mut word = PurchaseWord::new(state, report.status, asked_at);
    word.payment = report.payment;
    word.subscription = report.subscription;
    word.customer = report.customer;
    word.open_until = open_until;
    word.held_until = report.period_end;
    word
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("plans", &self.plans.len())
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}
