"""Filings: full submissions to EDGAR and their headers."""
