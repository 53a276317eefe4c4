"""In-situ learning: session, network, variables, rules, estimators, optimisers."""
