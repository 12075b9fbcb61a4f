"""What is looked at: statistics, tables, figures and pages."""
