"""The controller: learning rules, estimators, sessions, data, reports and the `photonloop` command."""
