//! `check merge`

use std::path::PathBuf;

use clap::Args;

use super::{exit, verdicts};
use crate::cli::new_files::NewFiles;
use crate::cli::{Context, Error, Exit, Result};
use crate::domain::text::count;
use crate::workflow::{Merge, SigningKey, VerifyKey};

/// Merges the results of all shards of a catalog. Refuses a missing or unfinished shard, two parts with the same backups, and a part that
/// was edited or is about another catalog
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The file that `check --from CATALOG --shard K/N --out FILE.jsonl` wrote, one for each shard
    #[arg(value_name = "PART", required = true)]
    pub parts: Vec<PathBuf>,
    /// Write the merged results to this new file [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Accept only parts that are signed with the private key of this public key (PEM)
    #[arg(long, value_name = "FILE")]
    pub verify_key: Option<PathBuf>,
    /// Sign the merged results with this private key (Ed25519 in PEM); the parts must be signed, too
    #[arg(long, value_name = "FILE", requires = "verify_key")]
    pub sign_key: Option<PathBuf>,
}

pub fn run(context: &Context<'_>, args: &MergeArgs) -> Result<Exit> {
    let ui = context.ui;
    let key = args.verify_key.as_deref().map(VerifyKey::read).transpose()?;
    let sign_key = context.signing_key(args.sign_key.as_deref())?;
    let mut files = NewFiles::create(args.out.iter())?;
    let merge = Merge::read(&args.parts, key.as_ref())?;
    let sign = sign_key.as_ref().map(SigningKey::signer);
    let mut merged = None;
    match &args.out {
        Some(path) => files.fill(|file| {
            merged = Some(merge.write(file, &path.display().to_string(), sign));
            Ok(())
        })?,
        None => merged = Some(merge.write(ui.stream(), "the result to standard output", sign)),
    }
    let Some(summary) = merged.transpose()? else { return Err(Error::new(Exit::Unexpected, "nothing was written")) };
    files.keep();
    ui.say(format!("Merged {}: {}.", count(args.parts.len(), "shard"), verdicts(&summary)));
    Ok(exit(&summary))
}
