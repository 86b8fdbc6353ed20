"""The report's templates: a package, so that they travel with an installed runbook."""
