"""Reading and comparing mathematical answers; `rewards.math_verifier` puts the parts together."""
