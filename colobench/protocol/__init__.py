"""The COLO conversation and failover as tables: state × event → state, actions."""
