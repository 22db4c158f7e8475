//! Who looks at the admin pages, and what they may do there.
//!
//! [`Visitor`] lets in whoever may see the pages; [`Editor`] and [`Edit`] only those who may change
//! something, for the pages that lead to a change and for the change itself.

use std::collections::HashMap;

use adit_policy::ActorId;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;

use crate::portal::{Portal, SharedPortal};
use crate::store::{By, Change, Role};
use crate::web::{Refusal, Signed, SignedForm};

/// Somebody who may see everything.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// Their name.
    pub(super) name: String,
    /// What they are, in a word.
    pub(super) role: &'static str,
    /// Whether they may change anything.
    pub(super) may_change: bool,
    /// What their forms carry.
    pub(super) csrf: String,
    signed: Signed,
}

impl Visitor {
    pub(super) fn new(signed: Signed) -> Result<Self, Refusal> {
        let role = signed.actor.role;
        if !role.reads() {
            return Err(Refusal::forbidden("These pages are for administrators and auditors."));
        }
        let name = signed.actor.name.clone();
        let may_change = role.writes();
        Ok(Self { name, role: role_name(role), may_change, csrf: signed.csrf.clone(), signed })
    }

    /// Whether they may change owners, roles, the API tokens of others, identity providers, and where flows are sent.
    pub(super) fn owns(&self) -> bool {
        self.signed.actor.role.owns()
    }

    /// Refuses what only owners may do, and says what that is.
    pub(super) fn must_own(&self, what: &str) -> Result<(), Refusal> {
        if self.owns() { Ok(()) } else { Err(Refusal::forbidden(&format!("Only owners {what}."))) }
    }

    /// Whether they are signed in with this provider.
    pub(super) fn is_signed_in_with(&self, provider: &str) -> bool {
        self.signed.session.provider == provider
    }

    /// Whether a thing of an actor's is their own.
    pub(super) fn is(&self, actor: Option<ActorId>) -> bool {
        actor == Some(self.signed.session.actor())
    }

    /// Inside a change that disables, enables or deletes `actor`.
    pub(super) async fn governs(&self, change: &mut Change, actor: ActorId) -> Result<(), Refusal> {
        if self.signed.actor.role.governs(change.actor_role(actor).await?) {
            return Ok(());
        }
        Err(Refusal::forbidden("Only owners change owners."))
    }

    /// Who makes a change, for the audit log.
    pub(super) fn by(&self) -> By {
        self.signed.by()
    }

    /// Whether a session is the one of this request.
    pub(super) fn is_session(&self, id: uuid::Uuid) -> bool {
        self.signed.session.id == id
    }

    /// Whether the session lasts and its owner is still let in; when the database cannot tell, not.
    pub(super) async fn is_still_signed_in(&self, portal: &Portal) -> bool {
        let session = portal.store.web_session(self.signed.session.id).await;
        let lasts = matches!(&session, Ok(Some(session)) if !session.is_over(crate::clock::now_ms()));
        let actor = portal.store.actor(self.signed.session.actor()).await;
        lasts && actor.is_ok_and(|actor| actor.enabled && actor.role.reads())
    }

    pub(super) fn editor(self) -> Result<Self, Refusal> {
        if self.may_change {
            Ok(self)
        } else {
            Err(Refusal::forbidden("Auditors see everything and change nothing."))
        }
    }
}

impl FromRequestParts<SharedPortal> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, portal: &SharedPortal) -> Result<Self, Refusal> {
        Self::new(Signed::from_request_parts(parts, portal).await?)
    }
}

/// What a role is called.
pub(super) const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => "Owner",
        Role::Admin => "Administrator",
        Role::Auditor => "Auditor",
        Role::None => "none",
    }
}

/// Somebody who may change something and asks for a page on which that is done.
#[derive(Debug)]
pub(super) struct Editor(pub(super) Visitor);

impl FromRequestParts<SharedPortal> for Editor {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, portal: &SharedPortal) -> Result<Self, Refusal> {
        Visitor::from_request_parts(parts, portal).await?.editor().map(Self)
    }
}

/// The fields of a form that somebody who may change something has sent.
#[derive(Debug)]
pub(super) struct Edit(pub(super) Visitor, pub(super) Fields);

impl FromRequest<SharedPortal> for Edit {
    type Rejection = Refusal;

    async fn from_request(request: Request, portal: &SharedPortal) -> Result<Self, Refusal> {
        let SignedForm(signed, fields) = SignedForm::from_request(request, portal).await?;
        Ok(Self(Visitor::new(signed)?.editor()?, Fields(fields)))
    }
}

/// What was filled in.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(pub(super) HashMap<String, String>);

impl Fields {
    /// A field without the spaces around it; empty when it is not there.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |value| value.trim())
    }

    /// Whether a box is ticked.
    pub(super) fn has(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }
}
