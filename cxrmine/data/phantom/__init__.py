"""Synthetic chest films: anatomy, findings, the physics of a radiograph, and a cohort of patients."""
