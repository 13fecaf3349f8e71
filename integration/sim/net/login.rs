//! `Auth.Authenticate`, by hand: the client crate generates its server but does not let the name of its request out.

use std::convert::Infallible;

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Context, Poll, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::member::{Member, peer};

/// etcd's `AuthenticateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Credentials {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    password: String,
}

/// etcd's `AuthenticateResponse`, of which the client reads nothing else.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Token {
    #[prost(string, tag = "2")]
    token: String,
}

/// The service at a member.
#[derive(Clone)]
pub(super) struct Login(pub(super) Member);

impl NamedService for Login {
    const NAME: &'static str = "etcdserverpb.Auth";
}

impl UnaryService<Credentials> for Login {
    type Response = Token;
    type Future = BoxFuture<Response<Token>, Status>;

    fn call(&mut self, request: Request<Credentials>) -> Self::Future {
        let Login(Member { cluster, number }) = self.clone();
        Box::pin(async move {
            let (client, credentials) = (peer(&request), request.into_inner());
            // It is agreed on by all members, so it needs a leader.
            cluster.ask(number, false, |store| async move { store.member().await }).await?;
            let token = cluster.authenticate(&credentials.name, &credentials.password)?;
            cluster.log().line(format_args!("{} authenticated {client} {token}", cluster.host(number)));
            Ok(Response::new(Token { token }))
        })
    }
}

impl Service<http::Request<Body>> for Login {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let login = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/etcdserverpb.Auth/Authenticate" {
                return Ok(Status::unimplemented("not simulated").into_http());
            }
            Ok(Grpc::new(ProstCodec::default()).unary(login, request).await)
        })
    }
}
