//! What leaves over a plain transport.

use crate::wire::{Message, PAYMENT_ACCEPTED, PAYMENT_REJECTED, PAYMENT_REQUIRED};

/// Whether a client of MCP alone knows what to do with `message`. Payment notifications are between peers that speak CEP-8, and
/// some clients treat what they do not know as an error.
pub(super) fn is_for_plain_clients(message: &Message) -> bool {
    let Message::Notification(notification) = message else {
        return true;
    };
    ![PAYMENT_REQUIRED, PAYMENT_ACCEPTED, PAYMENT_REJECTED].contains(&notification.method.as_str())
}

/// `message` on one line. Text between the values of JSON may hold line breaks; text inside them cannot.
pub(super) fn on_one_line(message: &Message) -> String {
    let mut json = message.to_json();
    if json.contains(['\n', '\r']) {
        json = json.replace(['\n', '\r'], " ");
    }
    json
}
