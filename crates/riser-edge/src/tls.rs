//! TLS on the public listener: what certificates make, and a stream's two halves. rustls is named here and nowhere else.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::ws::{WriteHalf, reset_at_end, settle_at_end};

/// What is spoken inside (RFC 7301); a client that wants something else alone is refused.
const HTTP_11: &[u8] = b"http/1.1";

/// Why a certificate and its key make no listener.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate in PEM, or a broken one.
    #[error("there is no good certificate in it, in PEM")]
    Certificate,
    /// No private key in PEM, or a broken one.
    #[error("there is no good private key in it, in PEM")]
    Key,
    /// They do not fit each other, or are of a kind that is not supported.
    #[error("the certificate and the key cannot be used together")]
    Pair(#[source] rustls::Error),
}

/// A certificate with its key, ready for connections. Clones are the same.
#[derive(Clone)]
pub struct ServerTls(Arc<ServerConfig>);

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

/// A connection whose handshake is done.
pub(crate) type TlsStream = tokio_rustls::server::TlsStream<TcpStream>;

impl ServerTls {
    /// Puts a certificate, with those that signed it behind it, and its private key together, both in PEM.
    pub fn new(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate_pem)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::Certificate)?;
        if chain.is_empty() {
            return Err(TlsError::Certificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| TlsError::Key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(TlsError::Pair)?;
        config.alpn_protocols = vec![HTTP_11.to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Does the handshake of one connection. Whoever calls it bounds its time.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream> {
        TlsAcceptor::from(self.0.clone()).accept(stream).await
    }
}

/// The halves of a stream: TLS has one state for both directions, so that they take turns.
pub(crate) fn split(stream: TlsStream) -> (TlsRead, TlsWrite) {
    let both = Arc::new(Mutex::new(stream));
    (TlsRead(both.clone()), TlsWrite(both))
}

pub(crate) struct TlsRead(Arc<Mutex<TlsStream>>);

pub(crate) struct TlsWrite(Arc<Mutex<TlsStream>>);

impl AsyncRead for TlsRead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut *self.0.lock()).poll_read(cx, buf)) {
            // An end without TLS' own goodbye is the end of the stream: whether it was meant, the close frame tells.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            read => Poll::Ready(read),
        }
    }
}

impl AsyncWrite for TlsWrite {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(cx, buf)
    }

    // Frames that leave together are joined before, into one record.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_shutdown(cx)
    }
}

impl WriteHalf for TlsWrite {
    fn abandon(&mut self) {
        reset_at_end(self.0.lock().get_ref().0);
    }

    fn settle(&mut self) {
        settle_at_end(self.0.lock().get_ref().0);
    }
}
