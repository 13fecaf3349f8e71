//! etcd's users and roles behind [`UserAdmin`]: a conversion around each call.

use std::collections::BTreeSet;
use std::sync::Arc;

use etcd_client::{Client, Error, Permission, PermissionType, RoleRevokePermissionOptions, UserAddOptions};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::connect::Tcp;
use super::pool::Pool;
use super::settings::StoreSettings;
use super::turns::Kind;
use crate::store::api::{Key, KeyRange, StoreError};
use crate::store::grants::{Grant, Grants, Verb};
use crate::store::users::{Change, Found, Login, UserAdmin};

/// The users and roles of an etcd cluster.
#[derive(Debug)]
pub struct EtcdUsers {
    pool: Arc<Pool>,
}

impl EtcdUsers {
    /// Those of the etcd that `settings` name, without any contact yet.
    ///
    /// # Errors
    /// [`StoreError::Other`] if an endpoint cannot be understood.
    pub fn open(settings: StoreSettings) -> Result<Self, StoreError> {
        Ok(EtcdUsers { pool: Pool::new(Arc::new(Tcp), settings)? })
    }

    async fn found(&self, wanted: &Grants) -> Result<Found, StoreError> {
        let names = self.pool.call(Kind::Read, |client| {
            let mut auth = client.auth_client();
            async move { Ok((auth.role_list().await?.0.roles, auth.user_list().await?.0.users)) }
        });
        let (role_names, user_names) = names.await?.0;
        let mut found = Found { user_count: user_names.len(), ..Found::default() };
        for role in wanted.roles.iter().filter(|role| role_names.contains(&role.name)) {
            found.roles.insert(role.name.clone(), self.permissions(&role.name).await?);
        }
        for user in wanted.users.iter().filter(|user| user_names.contains(&user.name)) {
            let answer = self.pool.call(Kind::Read, |client| {
                let (mut auth, name) = (client.auth_client(), user.name.clone());
                async move { auth.user_get(name).await }
            });
            let roles: BTreeSet<String> = answer.await?.0.0.roles.into_iter().collect();
            found.users.insert(user.name.clone(), roles);
        }
        Ok(found)
    }

    async fn permissions(&self, role: &str) -> Result<Vec<Grant>, StoreError> {
        let answer = self.pool.call(Kind::Read, |client| {
            let (mut auth, name) = (client.auth_client(), role.to_owned());
            async move { auth.role_get(name).await }
        });
        Ok(answer.await?.0.permissions().iter().map(grant).collect())
    }
}

impl UserAdmin for EtcdUsers {
    fn read<'a>(&'a self, wanted: &'a Grants) -> BoxFuture<'a, Result<Found, StoreError>> {
        self.found(wanted).boxed()
    }

    fn write<'a>(&'a self, change: &'a Change, login: Option<&'a Login>) -> BoxFuture<'a, Result<(), StoreError>> {
        async move { self.pool.call(Kind::Write, |client| send(client, change.clone(), login.cloned())).await.map(|_| ()) }
            .boxed()
    }
}

fn send(client: &Client, change: Change, login: Option<Login>) -> impl Future<Output = Result<(), Error>> + use<> {
    let mut auth = client.auth_client();
    async move {
        match change {
            Change::AddRole(role) => auth.role_add(role).await.map(|_| ()),
            Change::Grant(role, grant) => auth.role_grant_permission(role, permission(grant)).await.map(|_| ()),
            Change::Revoke(role, range) => {
                let end = range.end.map(|end| end.into_bytes().to_vec()).unwrap_or_default();
                let options = RoleRevokePermissionOptions::new().with_range_end(end);
                auth.role_revoke_permission(role, range.start.into_bytes().to_vec(), Some(options)).await.map(|_| ())
            }
            Change::AddUser(user) => match login {
                Some(Login::Password(password)) => auth.user_add(user, password, None).await.map(|_| ()),
                Some(Login::Certificate) | None => {
                    auth.user_add(user, "", Some(UserAddOptions::new().with_no_pwd())).await.map(|_| ())
                }
            },
            Change::GiveRole { user, role } => auth.user_grant_role(user, role).await.map(|_| ()),
        }
    }
}

fn permission(grant: Grant) -> Permission {
    let kind = match grant.verb {
        Verb::Read => PermissionType::Read,
        Verb::Write => PermissionType::Write,
        Verb::ReadWrite => PermissionType::Readwrite,
    };
    let permission = Permission::new(kind, grant.range.start.into_bytes().to_vec());
    match grant.range.end {
        Some(end) => permission.with_range_end(end.into_bytes().to_vec()),
        None => permission,
    }
}

/// A kind that a later etcd may invent counts as write alone, which enlist never grants: it is replaced.
fn grant(permission: &Permission) -> Grant {
    let verb = match PermissionType::try_from(permission.get_type()) {
        Ok(PermissionType::Read) => Verb::Read,
        Ok(PermissionType::Readwrite) => Verb::ReadWrite,
        Ok(PermissionType::Write) | Err(_) => Verb::Write,
    };
    let end = permission.range_end();
    let end = (!end.is_empty()).then(|| Key::from(end.to_vec()));
    Grant { range: KeyRange { start: Key::from(permission.key().to_vec()), end }, verb }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_come_back_as_they_were_sent() {
        let ranges =
            [KeyRange::one("/e/a"), KeyRange::prefix("/e/"), KeyRange::between("/e/a", "/e/x"), KeyRange::between("/e", "\0")];
        for range in ranges {
            for verb in [Verb::Read, Verb::Write, Verb::ReadWrite] {
                let sent = Grant { range: range.clone(), verb };
                assert_eq!(grant(&permission(sent.clone())), sent);
            }
        }
    }
}
