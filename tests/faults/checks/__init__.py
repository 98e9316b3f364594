"""What is checked: one module for each row of the table in ``docs/explanation/proof.md``."""
