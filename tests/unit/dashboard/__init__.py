"""The pages of the dashboard, on a real ledger."""
