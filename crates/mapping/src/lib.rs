//! From a MySQL row to Cassandra mutations: plans, conversions, folding, equality, DDL
