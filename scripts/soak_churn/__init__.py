"""The parts of scripts/soak-churn."""
