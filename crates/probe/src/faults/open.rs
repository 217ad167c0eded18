//! The way into the tool: the best variant with a kernel half, or the one that needs no privilege.

use trapline_model::doctor::Refusal;

use super::rootless::{NAME, Rootless};
use super::{Faults, Options};
use crate::launch::Launch;
use crate::run::Tool;
use crate::variant::{OpenError, Refused};

/// Attaches the first variant that works, or the one asked for: the last of them needs no privilege. Gives what a user
/// has to know beforehand, too.
///
/// # Errors
/// [`OpenError`] when no variant can be attached or the filter names what does not exist.
pub fn open(
    options: &Options,
    launch: Option<&Launch>,
) -> Result<(Box<dyn Tool>, Option<String>), OpenError> {
    if options.variant.as_deref() == Some(NAME) {
        return Ok((Box::new(Rootless::open(options, launch)?), None));
    }
    let mut refused = match Faults::open(options, launch) {
        Ok(faults) => {
            let warning = faults.warning().map(str::to_owned);
            return Ok((Box::new(faults), warning));
        }
        Err(OpenError::Refused(refused)) if options.variant.is_none() => refused,
        Err(OpenError::NoSuchVariant { name, mut known }) => {
            known.push(NAME);
            return Err(OpenError::NoSuchVariant { name, known });
        }
        Err(error) => return Err(error),
    };
    match Rootless::open(options, launch) {
        Ok(rootless) => return Ok((Box::new(rootless), None)),
        // What to do about the others would do for this one, too.
        Err(OpenError::Refused(own)) => {
            let remedy = refused.first().map(|r| r.refusal.remedy.clone()).unwrap_or_default();
            let text = |own: &Refused| format!("{}; {}", own.refusal.error, own.refusal.remedy);
            refused.extend(own.iter().map(|own| rootless(text(own), remedy.clone())));
        }
        Err(OpenError::Unfit { why, .. }) => {
            let remedy = refused.first().map(|r| r.refusal.remedy.clone()).unwrap_or_default();
            refused.push(rootless(why.into(), remedy));
        }
        Err(error) => return Err(error),
    }
    Err(OpenError::Refused(refused))
}

fn rootless(error: String, remedy: String) -> Refused {
    Refused { variant: NAME, refusal: Refusal { errno: None, error, remedy } }
}
