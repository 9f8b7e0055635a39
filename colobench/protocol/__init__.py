"""COLO's conversation and failover as tables: state × event → state, actions."""
