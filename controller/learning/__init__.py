"""In-situ training: session, network, variables, rules, estimators and optimisers."""
