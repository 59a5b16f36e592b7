//! What the server sells itself, ready to be handed over.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::child::Catalogue;
use super::config::{BalanceSettings, SaleSettings, Selling};
use super::exit::{Failure, Outcome};
use super::own_licences::{OwnLicences, Signed};
use super::wire_up::Books;
use crate::error::{Error, Result};
use crate::payment::{Clock, SystemClock};
use crate::server::{BalanceTool, Good, Purchase, TopUp, tool_result};
use crate::wire::method;

/// The server's own tools, and what is needed to price them.
pub(super) struct Goods {
    pub(super) tools: Vec<Arc<dyn Good>>,
    pub(super) top_up: Option<TopUp>,
}

impl Goods {
    /// What `selling` asks for. Not under a name that a tool of the child has.
    pub(super) fn new(
        selling: &Selling,
        books: &Books,
        own: Option<&OwnLicences>,
        catalogue: &Catalogue,
    ) -> Outcome<Self> {
        let mut tools: Vec<Arc<dyn Good>> = Vec::new();
        let mut top_up = None;
        if let Some(settings) = &selling.balance {
            let tool = top_up_tool(settings, books)?;
            let unit = settings.range.unit().clone();
            let ledger = Arc::clone(&books.ledger);
            tools.push(Arc::new(tool.clone()));
            tools.push(Arc::new(BalanceTool::new(
                &settings.balance_tool,
                unit,
                ledger,
            )));
            top_up = Some(tool);
        }
        if let (Some(settings), Some(own)) = (&selling.licence_sale, own) {
            tools.push(Arc::new(LicenceTool::new(settings, own.clone())));
        }
        for good in &tools {
            if catalogue.tool(good.name()).is_some() {
                return Err(Failure::usage(format!(
                    "the server that is sold has a tool {:?} of its own: name ours otherwise (top_up_tool, balance_tool, tool)",
                    good.name()
                )));
            }
        }
        Ok(Self { tools, top_up })
    }

    /// Why a call of one of our tools cannot be served; `None` if it is not one of ours.
    pub(super) fn objection(
        &self,
        name: &str,
        arguments: Option<&Value>,
    ) -> Option<Option<String>> {
        let good = self.tools.iter().find(|good| good.name() == name)?;
        let top_up = self.top_up.as_ref().filter(|t| t.name() == good.name());
        Some(top_up.and_then(|top_up| top_up.objection(arguments)))
    }
}

pub(super) fn top_up_tool(settings: &BalanceSettings, books: &Books) -> Outcome<TopUp> {
    Ok(TopUp::new(
        &settings.top_up_tool,
        settings.range.clone(),
        settings.most,
        Arc::clone(&books.ledger),
        Arc::new(SystemClock),
    )?)
}

/// The tool that sells licences, each to the key that paid for it.
#[derive(Debug)]
struct LicenceTool {
    name: String,
    lives: std::time::Duration,
    covers: Vec<crate::payment::Capability>,
    signed: Signed,
    own: OwnLicences,
}

impl LicenceTool {
    fn new(settings: &SaleSettings, own: OwnLicences) -> Self {
        Self {
            name: settings.tool.clone(),
            lives: settings.lives,
            covers: settings.covers.clone(),
            signed: settings.signed,
            own,
        }
    }
}

#[async_trait]
impl Good for LicenceTool {
    fn name(&self) -> &str {
        &self.name
    }

    fn tool(&self) -> Value {
        let days = self.lives.as_secs() / 86_400;
        let what = match self.covers.as_slice() {
            [] => "everything that is sold here".to_owned(),
            covers => covers
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        };
        json!({
            "name": self.name,
            "description": format!(
                "Sells a licence for {what}, for {days} days, which only you can use. Present it with each call, in \
                 _meta under tollkeeper/licence."
            ),
            "inputSchema": { "type": "object", "properties": {} },
        })
    }

    fn is_sold(&self) -> bool {
        true
    }

    async fn hand_over(&self, purchase: &Purchase) -> Result<Value> {
        let entry = purchase
            .paid_by
            .ok_or_else(|| Error::ledger("a licence without its payment"))?;
        let (issued, token) = self
            .own
            .issue(
                self.signed.id(&entry.to_string()),
                purchase.client,
                entry.to_string(),
                self.covers.clone(),
                (SystemClock.now(), self.lives),
            )
            .await?;
        let data = json!({
            "licence": token.reveal(), "id": issued.id, "expiresAt": issued.expires_at.as_secs(),
        });
        Ok(tool_result(token.reveal(), &data))
    }
}

/// What checks calls before a price is named, with our own tools among those that are known.
pub(super) fn check_call(
    goods: Arc<Goods>,
    listed: Option<super::call_check::ListedCalls>,
) -> impl crate::payment::CheckCall + 'static {
    move |call: &crate::payment::Invocation| {
        let ours = call
            .name
            .as_deref()
            .filter(|_| call.method == method::TOOLS_CALL);
        if let Some(said) =
            ours.and_then(|name| goods.objection(name, call.params.get("arguments")))
        {
            return said;
        }
        crate::payment::CheckCall::objection(listed.as_ref()?, call)
    }
}
