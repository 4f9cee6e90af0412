"""What runs a flow, kills it and what it depends on at named and at random moments, and audits the platform's books."""
