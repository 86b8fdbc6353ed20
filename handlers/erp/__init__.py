"""The ERP's database: adopted, examined and tried."""
