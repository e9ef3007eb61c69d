"""OAuth rules without I/O: logins, refreshes, and the exchange of workload identities."""
