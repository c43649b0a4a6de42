"""Reading and comparing mathematical answers; `rewards.verifiers.math_answers` puts the parts
together."""
