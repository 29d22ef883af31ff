//! What a refused credential, or a token that was not made, is answered over HTTP.

use riser_core::close::ErrorCode;

use super::{AuthError, MintError};
use crate::problem::Problem;

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let problem = Self::new(error.http_status(), error.error_code(), error.to_string());
        match error.retry_after() {
            Some(after) => problem.retry_after(u32::try_from(after.as_secs()).unwrap_or(u32::MAX)),
            None => problem,
        }
    }
}

impl From<MintError> for Problem {
    fn from(error: MintError) -> Self {
        match error.code() {
            ErrorCode::BadFrame => Self::bad_frame(error.to_string()),
            ErrorCode::Forbidden => Self::forbidden(error.to_string()),
            _ => Self::internal(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};

    use super::*;

    #[test]
    fn a_refused_credential_is_told_how_to_come() {
        for error in AuthError::ALL {
            let problem = Problem::from(error);
            let locked = error == AuthError::LockedOut;
            assert_eq!(problem.code, if locked { ErrorCode::RateLimited } else { ErrorCode::Forbidden });
            let response = problem.into_response();
            assert_eq!(response.status(), error.http_status());
            let unauthorized = response.status() == http::StatusCode::UNAUTHORIZED;
            assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), unauthorized, "{error:?}");
            assert_eq!(response.headers().contains_key(RETRY_AFTER), locked);
        }
    }

    #[test]
    fn what_broke_in_here_stays_in_here() {
        for (error, status) in [
            (MintError::Forbidden, 403),
            (MintError::BadOrder("no"), 400),
            (MintError::TooLarge, 400),
            (MintError::NoSigningKey, 500),
            (MintError::NoRandomness, 500),
        ] {
            let problem = Problem::from(error);
            assert_eq!(problem.status.as_u16(), status);
            assert_eq!(problem.detail == error.to_string(), status != 500, "{error:?}");
        }
    }
}
