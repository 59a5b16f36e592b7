//! Purchases, in memory.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;

use super::MemoryLedger;
use crate::error::Result;
use crate::ledger::{
    Begun, OpenLimits, Purchase, PurchaseBooks, PurchaseFilter, PurchaseName, PurchaseState,
    PurchaseWord, RailNotice, Reported, Usage,
};
use crate::payment::{ClientPubkey, RequestEventId, Timestamp};

#[derive(Debug, Default)]
pub(super) struct Purchases {
    /// By account and client.
    customers: HashMap<(String, ClientPubkey), String>,
    /// By account.
    live_since: HashMap<String, Timestamp>,
    purchases: HashMap<RequestEventId, Purchase>,
    /// With whether it was acted upon.
    notices: BTreeMap<String, (RailNotice, bool)>,
    usage: HashMap<RequestEventId, (Usage, Option<Reported>)>,
}

impl Purchases {
    fn standing(&self, client: &ClientPubkey, plan: &str) -> Option<&Purchase> {
        let of = |purchase: &&Purchase| purchase.client == *client && purchase.plan == plan;
        let rank = |purchase: &Purchase| match purchase.state {
            PurchaseState::Held => 2,
            PurchaseState::Open => 1,
            PurchaseState::Lapsed | PurchaseState::Over => 0,
        };
        let mut of_plan: Vec<&Purchase> = self.purchases.values().filter(of).collect();
        of_plan.sort_by_key(|purchase| (rank(purchase), purchase.made_at, purchase.id));
        of_plan.pop()
    }
}

#[async_trait]
impl PurchaseBooks for MemoryLedger {
    async fn keep_customer(
        &self,
        account: &str,
        client: &ClientPubkey,
        customer: &str,
    ) -> Result<String> {
        let mut books = self.purchase_books();
        let kept = books.customers.entry((account.to_owned(), *client));
        Ok(kept.or_insert_with(|| customer.to_owned()).clone())
    }

    async fn customer_of(&self, account: &str, client: &ClientPubkey) -> Result<Option<String>> {
        let name = (account.to_owned(), *client);
        Ok(self.purchase_books().customers.get(&name).cloned())
    }

    async fn allow_live(&self, account: &str, at: Timestamp) -> Result<Timestamp> {
        let mut books = self.purchase_books();
        Ok(*books.live_since.entry(account.to_owned()).or_insert(at))
    }

    async fn live_since(&self, account: &str) -> Result<Option<Timestamp>> {
        Ok(self.purchase_books().live_since.get(account).copied())
    }

    async fn begin_purchase(&self, new: Purchase, limits: OpenLimits) -> Result<Begun> {
        let mut books = self.purchase_books();
        if let Some(known) = books.purchases.get(&new.id) {
            return Ok(Begun::Standing(known.clone()));
        }
        let at = new.made_at;
        if let Some(standing) = books.standing(&new.client, &new.plan)
            && (standing.state == PurchaseState::Held || standing.is_payable(at))
        {
            return Ok(Begun::Standing(standing.clone()));
        }
        let open = books.purchases.values().filter(|p| p.is_payable(at));
        let (of_client, total) = open.fold((0, 0), |(own, all), purchase| {
            (own + usize::from(purchase.client == new.client), all + 1)
        });
        if of_client >= limits.per_client || total >= limits.total {
            return Ok(Begun::Full);
        }
        books.purchases.insert(new.id, new.clone());
        Ok(Begun::New(new))
    }

    async fn offer_purchase(
        &self,
        id: &RequestEventId,
        session: &str,
        url: &str,
        open_until: Timestamp,
    ) -> Result<Option<Purchase>> {
        let mut books = self.purchase_books();
        let taken = |purchase: &Purchase| {
            purchase.id != *id && purchase.session.as_deref() == Some(session)
        };
        if books.purchases.values().any(taken) {
            return Ok(None);
        }
        Ok(books.purchases.get_mut(id).map(|purchase| {
            if purchase.session.is_none() {
                purchase.session = Some(session.to_owned());
                purchase.url = Some(url.to_owned());
                purchase.open_until = open_until;
            }
            purchase.clone()
        }))
    }

    async fn learn_purchase(
        &self,
        id: &RequestEventId,
        word: PurchaseWord,
    ) -> Result<Option<(Purchase, bool)>> {
        let mut books = self.purchase_books();
        Ok(books
            .purchases
            .get_mut(id)
            .map(|purchase| match purchase.after(&word) {
                Some(next) => {
                    *purchase = next.clone();
                    (next, true)
                }
                None => (purchase.clone(), false),
            }))
    }

    async fn purchase(&self, name: &PurchaseName) -> Result<Option<Purchase>> {
        let books = self.purchase_books();
        let is = |held: &Option<String>, wanted: &String| held.as_ref() == Some(wanted);
        let found = books.purchases.values().find(|purchase| match name {
            PurchaseName::Id(id) => purchase.id == *id,
            PurchaseName::Session(session) => is(&purchase.session, session),
            PurchaseName::Payment(payment) => is(&purchase.payment, payment),
            PurchaseName::Subscription(name) => is(&purchase.subscription, name),
        });
        Ok(found.cloned())
    }

    async fn standing_purchase(
        &self,
        client: &ClientPubkey,
        plan: &str,
    ) -> Result<Option<Purchase>> {
        Ok(self.purchase_books().standing(client, plan).cloned())
    }

    async fn purchases(&self, filter: &PurchaseFilter) -> Result<Vec<Purchase>> {
        let wanted = |purchase: &&Purchase| {
            let states = &filter.states;
            let place = (purchase.made_at, purchase.id);
            (states.is_empty() || states.contains(&purchase.state))
                && filter.seen_before.is_none_or(|at| {
                    purchase.seen_at < at || filter.or_after.is_some_and(|at| purchase.seen_at > at)
                })
                && filter.after.is_none_or(|after| place > after)
        };
        let books = self.purchase_books();
        let mut listed: Vec<Purchase> = books.purchases.values().filter(wanted).cloned().collect();
        listed.sort_by_key(|purchase| (purchase.made_at, purchase.id));
        listed.truncate(filter.limit);
        Ok(listed)
    }

    async fn take_in(&self, notice: RailNotice) -> Result<bool> {
        let mut books = self.purchase_books();
        if books.notices.contains_key(&notice.id) {
            return Ok(false);
        }
        books.notices.insert(notice.id.clone(), (notice, false));
        Ok(true)
    }

    async fn untreated(&self, limit: usize) -> Result<Vec<RailNotice>> {
        let books = self.purchase_books();
        let mut waiting: Vec<RailNotice> = books
            .notices
            .values()
            .filter(|(_, treated)| !treated)
            .map(|(notice, _)| notice.clone())
            .collect();
        waiting.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        waiting.truncate(limit);
        Ok(waiting)
    }

    async fn treated(&self, id: &str) -> Result<()> {
        if let Some((_, treated)) = self.purchase_books().notices.get_mut(id) {
            *treated = true;
        }
        Ok(())
    }

    async fn note_usage(&self, usage: Usage) -> Result<bool> {
        let mut books = self.purchase_books();
        if books.usage.contains_key(&usage.event) {
            return Ok(false);
        }
        books.usage.insert(usage.event, (usage, None));
        Ok(true)
    }

    async fn unreported(&self, limit: usize) -> Result<Vec<Usage>> {
        let books = self.purchase_books();
        let mut due: Vec<Usage> = books
            .usage
            .values()
            .filter(|(_, reported)| reported.is_none())
            .map(|(usage, _)| usage.clone())
            .collect();
        due.sort_by_key(|usage| (usage.at, usage.event));
        due.truncate(limit);
        Ok(due)
    }

    async fn reported(&self, event: &RequestEventId, how: Reported) -> Result<()> {
        if let Some((_, reported)) = self.purchase_books().usage.get_mut(event) {
            reported.get_or_insert(how);
        }
        Ok(())
    }

    async fn forget_purchases(&self, before: Timestamp) -> Result<usize> {
        let mut books = self.purchase_books();
        let count =
            |books: &Purchases| books.notices.len() + books.usage.len() + books.purchases.len();
        let known = count(&books);
        books
            .notices
            .retain(|_, (notice, treated)| !*treated || notice.at >= before);
        books
            .usage
            .retain(|_, (usage, reported)| reported.is_none() || usage.at >= before);
        books.purchases.retain(|_, purchase| {
            purchase.state != PurchaseState::Lapsed
                || purchase.payment.is_some()
                || purchase.subscription.is_some()
                || purchase.made_at >= before
        });
        Ok(known - count(&books))
    }
}
